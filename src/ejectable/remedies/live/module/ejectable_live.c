// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Repair one function of the kernel that runs, as an advisory declares it (ejectable_target.h, which `ejectable fix live`
 * writes): a kprobe stands at its entry, and where the call would go wrong, an empty pointer is filled, a table is put
 * in order, or the function is not run and its caller gets a value (action.h). Of CVE-2024-42134: since fd27ef6b44be
 * ("virtio-pci: Introduce admin virtqueue") vp_del_vqs() calls the pointer is_avq of struct virtio_pci_device for each
 * virtqueue, and only the modern probe sets it; at the entry a function is put there that answers what is true of every
 * legacy device (no queue of it is an admin virtqueue), and at the end the pointer is empty again.
 *
 * No list is walked for it, no notifier of a bus is used, and no lock is taken: whoever calls the function holds the
 * object, and the function itself is the witness of what it is given.
 *
 * The structs are often private to a driver, so their layout is a constant of the build. It is believed only as far as
 * it can be tested: on that kernel and that driver alone (build-ids), and on an object alone that is what the layout
 * says, see witness.h. At any other one nothing is written.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/objtool.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/utsname.h>

#include "ejectable_target.h"

#define DRIVER EJECTABLE_DRIVER
#define FUNCTION EJECTABLE_FUNCTION
#define IN_MODULE (sizeof(EJECTABLE_DRIVER_BUILD_ID) > 1)

static atomic_long_t acted, refused, missed;

#include "witness.h"
#include "action.h"

#ifdef EJECTABLE_BUS
/* The device that the argument of the function is, or is around. */
#define TELL(level, argument, text) dev_##level((struct device *)((argument) + EJECTABLE_DEVICE_OFFSET), text)
#else
#define TELL(level, argument, text) pr_##level##_ratelimited(text)
#endif

/* At the entry of the function. */
static int ejectable_act(struct kprobe *unused, struct pt_regs *regs)
{
	unsigned long argument = regs_get_kernel_argument(regs, 0);
	bool done = false;
	int skip = 0;

	switch (ejectable_examine(argument)) {
	case WRONG:
		skip = ejectable_do(argument, regs, &done);
		if (!done)
			break;
		atomic_long_inc(&acted);
		TELL(info, argument, EJECTABLE_DOES "\n");
		break;
	case STRANGE:
		atomic_long_inc(&refused);
		TELL(warn, argument, "not as this module was built for: left alone\n");
		break;
	default:
		break;
	}
	return skip;
}

static DEFINE_MUTEX(arming);
static bool armed;
static struct kprobe ejectable_kprobe;
#ifdef EJECTABLE_FILL
static struct kretprobe ejectable_kretprobe;
#endif

static int counter_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read((atomic_long_t *)param->arg));
}

static int missed_get(char *buffer, const struct kernel_param *unused)
{
	long now = atomic_long_read(&missed) + READ_ONCE(ejectable_kprobe.nmissed);

#ifdef EJECTABLE_FILL
	now += READ_ONCE(ejectable_kretprobe.nmissed);
#endif
	return sysfs_emit(buffer, "%ld\n", now);
}

static const struct kernel_param_ops counter_ops = { .get = counter_get };
static const struct kernel_param_ops missed_ops = { .get = missed_get };
module_param_cb(acted, &counter_ops, &acted, 0444);
MODULE_PARM_DESC(acted, "how often a call of the function would have gone wrong, and did not");
module_param_cb(refused, &counter_ops, &refused, 0444);
MODULE_PARM_DESC(refused, "how often an object was not what the layout says, and was left alone");
module_param_cb(missed, &missed_ops, NULL, 0444);
MODULE_PARM_DESC(missed, "how often a call, or its end, was not watched");
module_param(armed, bool, 0444);
MODULE_PARM_DESC(armed, "whether the function is watched now");

#ifdef EJECTABLE_FILL
/* What empties comes first: no pointer is filled that nobody empties. */
static int watch_ends(const char *where)
{
	memset(&ejectable_kretprobe, 0, sizeof(ejectable_kretprobe));
	ejectable_kretprobe.kp.symbol_name = where;
	ejectable_kretprobe.entry_handler = ejectable_entry;
	ejectable_kretprobe.handler = ejectable_empty;
	ejectable_kretprobe.data_size = sizeof(answer_fn *);
	ejectable_kretprobe.maxactive = INSTANCES;
	return register_kretprobe(&ejectable_kretprobe);
}

static void leave_ends(void)
{
	unregister_kretprobe(&ejectable_kretprobe);
	atomic_long_add(ejectable_kretprobe.nmissed, &missed);
}
#else
static int watch_ends(const char *where)
{
	return 0;
}

static void leave_ends(void)
{
}
#endif

static int arm_locked(void)
{
	/* Within the module where it is one: another module may have a function of that name. */
	const char *where = IN_MODULE ? DRIVER ":" FUNCTION : FUNCTION;
	int error;

	if (armed)
		return 0;
	memset(&ejectable_kprobe, 0, sizeof(ejectable_kprobe));
	ejectable_kprobe.symbol_name = where;
	ejectable_kprobe.pre_handler = ejectable_act;
#ifdef EJECTABLE_RETURN
	ejectable_kprobe.post_handler = ejectable_after;
#endif
	error = watch_ends(where);
	if (error)
		return error;
	error = register_kprobe(&ejectable_kprobe);
	if (error)
		leave_ends();
	armed = !error;
	return error;
}

static void disarm_locked(void)
{
	if (!armed)
		return;
	armed = false;
	unregister_kprobe(&ejectable_kprobe);
	atomic_long_add(ejectable_kprobe.nmissed, &missed);
	ejectable_kprobe.nmissed = 0;
	leave_ends();
}

static int arm(void)
{
	int error;

	mutex_lock(&arming);
	error = arm_locked();
	mutex_unlock(&arming);
	return error;
}

static void disarm(void)
{
	mutex_lock(&arming);
	disarm_locked();
	mutex_unlock(&arming);
}

/*
 * Whether a file of sysfs, where the kernel shows build-ids, holds these bytes (in hexadecimal); -ENOENT where there is
 * no such file.
 */
static int shows(const char *path, const char *hexadecimal)
{
	size_t size = strlen(hexadecimal) / 2;
	u8 wanted[64], *found;
	struct file *file;
	ssize_t count;
	loff_t at = 0;
	int error = -ENOEXEC;

	if (!size || size > sizeof(wanted) || hex2bin(wanted, hexadecimal, size))
		return -EINVAL;
	file = filp_open(path, O_RDONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	found = kmalloc(PAGE_SIZE, GFP_KERNEL);
	count = found ? kernel_read(file, found, PAGE_SIZE, &at) : -ENOMEM;
	for (at = 0; error && count >= 0 && at + size <= count; at++)
		if (!memcmp(found + at, wanted, size))
			error = 0;
	kfree(found);
	filp_close(file, NULL);
	return error;
}

/* Just this build of the kernel and, where it is a module that is loaded, of virtio_pci. */
static int is_built_for_this(void)
{
	int error = shows("/sys/kernel/notes", EJECTABLE_BUILD_ID);

	if (!error && IN_MODULE) {
		error = shows("/sys/module/" DRIVER "/notes/.note.gnu.build-id", EJECTABLE_DRIVER_BUILD_ID);
		if (error == -ENOENT) /* it is not loaded, and looked at when it comes */
			error = 0;
	}
	if (error)
		pr_err("the build-ids in sysfs are not those that this module was built for (%d): refused\n", error);
	return error;
}

/* A virtio_pci that comes: before its first device is probed. One of another build is not watched. */
static bool is_same_build(struct module *driver)
{
#ifdef CONFIG_STACKTRACE_BUILD_ID
	u8 wanted[BUILD_ID_SIZE_MAX];
	size_t size = min(strlen(EJECTABLE_DRIVER_BUILD_ID) / 2, sizeof(wanted));

	return !hex2bin(wanted, EJECTABLE_DRIVER_BUILD_ID, size) && !memcmp(driver->build_id, wanted, size);
#else
	return true; /* sysfs does not show it yet: the conditions of witness.h have to do */
#endif
}

static int module_event(struct notifier_block *unused, unsigned long event, void *data)
{
	struct module *module = data;
	int error;

	if (strcmp(module->name, DRIVER))
		return NOTIFY_DONE;
	if (event == MODULE_STATE_GOING) {
		disarm();
	} else if (event == MODULE_STATE_COMING) {
		error = is_same_build(module) ? arm() : -ENOEXEC;
		if (error)
			pr_err("a " DRIVER " that this module was not built for is not watched (%d)\n", error);
	}
	return NOTIFY_DONE;
}

static struct notifier_block module_events = { .notifier_call = module_event };

#ifdef EJECTABLE_BUS
static int is_meant(struct device *dev, void *unused)
{
	return dev->bus && !strcmp(dev->bus->name, EJECTABLE_BUS);
}

/*
 * Whether each device that is there now is one that the layout fits. Nothing is written, and no lock of a device is
 * taken. A reference on the PCI device alone would not do where the device that is meant is below it and freed first.
 */
static int look_at_all(void)
{
	struct pci_dev *pdev = NULL;
	struct device *device;
	int error = 0;

	for_each_pci_dev(pdev) {
		device = is_meant(&pdev->dev, NULL) ? get_device(&pdev->dev) : device_find_child(&pdev->dev, NULL, is_meant);
		if (!device)
			continue;
		if (ejectable_examine((unsigned long)device - EJECTABLE_DEVICE_OFFSET) == STRANGE) {
			dev_err(device, "not as this module was built for: nothing was changed\n");
			error = -EINVAL;
		}
		put_device(device);
	}
	return error;
}
#else
static int look_at_all(void)
{
	return 0; /* there is no way to them but the function */
}
#endif

static int __init ejectable_live_init(void)
{
	int error;

	/* The release alone names many builds; the version holds the time of the build (or what stands in for it). */
	if (strcmp(init_uts_ns.name.release, EJECTABLE_RELEASE) || strcmp(init_uts_ns.name.version, EJECTABLE_VERSION)) {
		pr_err("built for %s %s: refused\n", EJECTABLE_RELEASE, EJECTABLE_VERSION);
		return -ENOEXEC;
	}
	error = is_built_for_this();
	if (error)
		return error;
	error = look_at_all();
	if (error)
		return error;
	error = register_module_notifier(&module_events);
	if (error)
		return error;
	error = arm();
	if (error == -ENOENT && IN_MODULE) {
		pr_info(DRIVER " is not loaded: it is watched from when it comes\n");
		return 0;
	}
	if (error) {
		unregister_module_notifier(&module_events);
		pr_err(FUNCTION "() cannot be watched (%d)\n", error);
		return error;
	}
	pr_info(EJECTABLE_ADVISORY " is repaired while this is loaded\n");
	return 0;
}

static void __exit ejectable_live_exit(void)
{
	unregister_module_notifier(&module_events);
	disarm();
	pr_warn("unloaded, the danger is back: " EJECTABLE_DANGER "\n");
}

module_init(ejectable_live_init);
module_exit(ejectable_live_exit);

/* What it was built for, for whoever looks at the kernel's memory: `ejectable check`. */
static const char ejectable_target[] __used = EJECTABLE_BUILD_ID " " EJECTABLE_DRIVER_BUILD_ID
	" " EJECTABLE_DIGEST;

/* The same for `modinfo`, and for whoever loads it. */
MODULE_INFO(ejectable_release, EJECTABLE_RELEASE);
MODULE_INFO(ejectable_version, EJECTABLE_VERSION);
MODULE_INFO(ejectable_build_id, EJECTABLE_BUILD_ID);
MODULE_INFO(ejectable_driver_build_id, EJECTABLE_DRIVER_BUILD_ID);
MODULE_INFO(ejectable_advisory, EJECTABLE_ADVISORY);
MODULE_INFO(ejectable_digest, EJECTABLE_DIGEST);
MODULE_DESCRIPTION("Repairs " EJECTABLE_ADVISORY " in the kernel that runs");
MODULE_VERSION(EJECTABLE_TOOL_VERSION);
MODULE_LICENSE("GPL");
