// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Repair CVE-2024-42134 in the kernel that runs.
 *
 * Since fd27ef6b44be ("virtio-pci: Introduce admin virtqueue") vp_del_vqs() calls the pointer is_avq of struct
 * virtio_pci_device for each virtqueue, and only the modern probe sets it: taking a legacy device away calls
 * address 0. This module stands where that happens. At the entry of vp_del_vqs() it puts a function into the empty
 * pointer that answers what is true of every legacy device (no queue of it is an admin virtqueue), and at its end the
 * pointer is empty again.
 *
 * No list is walked for it, no notifier of a bus is used, and no lock is taken: whoever calls vp_del_vqs() holds the
 * device, and the function itself is the witness that it is virtio-pci's. Whatever plugs, unplugs, binds or unbinds,
 * and when, nothing else can reach the empty pointer.
 *
 * What is believed
 *
 * The struct is private to drivers/virtio, so its layout is a constant of the build, taken from the BTF of one
 * kernel (ejectable_target.h, which `ejectable fix live` writes). It is believed only as far as it can be tested: on
 * that kernel and that virtio_pci alone (build-ids), and on a device alone that is what the layout says, see
 * ejectable_examine(). At any other one nothing is written.
 *
 * Two probes at one address
 *
 * The kprobe fills, and the kretprobe empties. A kretprobe needs a free instance for each call that has not returned;
 * a kprobe needs none. So if the instances ever ran out, the call would go through all the same: only the pointer
 * would stay filled, and this module pinned, until the next call for that device.
 *
 * How it goes away
 *
 * Each filled pointer holds a reference on this module. While there is one, rmmod is refused, at once; and once the
 * module is on its way out, it can fill no more (try_module_get() fails). So no pointer into it is left behind, and
 * unloading waits for nobody: not for a device's lock, not for a thread that an Oops has killed in the middle of
 * vp_del_vqs(); that one keeps its reference for ever.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/stringify.h>
#include <linux/utsname.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "ejectable_target.h"

#define DRIVER "virtio_pci"
#define FUNCTION "vp_del_vqs"
#define IN_MODULE (sizeof(EJECTABLE_DRIVER_BUILD_ID) > 1)
/* Calls that may be under way at the same time before pointers stay filled: devices that go at once. */
#define INSTANCES 256

static_assert(EJECTABLE_IS_AVQ_OFFSET % sizeof(void *) == 0);
static_assert(EJECTABLE_IS_AVQ_OFFSET + sizeof(void *) <= EJECTABLE_DEVICE_SIZE);
static_assert(EJECTABLE_PCI_DEV_OFFSET + sizeof(void *) <= EJECTABLE_DEVICE_SIZE);
static_assert(EJECTABLE_VDEV_OFFSET + sizeof(struct virtio_device) <= EJECTABLE_DEVICE_SIZE);

static atomic_long_t acted, refused, missed;

/* The member's own type, to the letter: kCFI compares a hash of it with one in front of the function. */
typedef bool (*is_avq_fn)(struct virtio_device *vdev, unsigned int index);

static bool ejectable_no_avq(struct virtio_device *vdev, unsigned int index)
{
	return false;
}

static void *vp_dev_of(struct virtio_device *vdev)
{
	return (void *)vdev - EJECTABLE_VDEV_OFFSET;
}

static is_avq_fn *is_avq_of(struct virtio_device *vdev)
{
	return vp_dev_of(vdev) + EJECTABLE_IS_AVQ_OFFSET;
}

/*
 * Whether `pointer` is the start of the function `name`, which the kernel exports to nobody but kallsyms. Compilers
 * append to names of static functions: ".llvm.<hash>", ".constprop.0".
 */
static noinline bool ejectable_is_function(const void *pointer, const char *name)
{
	char found[KSYM_SYMBOL_LEN];
	size_t length = strlen(name);
	const char *rest;

	sprint_symbol(found, (unsigned long)pointer);
	if (strncmp(found, name, length) || (found[length] != '+' && found[length] != '.'))
		return false;
	rest = strchr(found, '+');
	return rest && !strncmp(rest, "+0x0/", 5);
}

/* The functions that each probe, legacy and modern, puts into the members beside is_avq. */
static const struct {
	size_t offset;
	const char *name;
} neighbours[] = { EJECTABLE_NEIGHBOURS };

enum state {
	OTHER,		/* not virtio-pci's, or on its way out */
	MODERN,		/* its probe set the pointer */
	BARE,		/* legacy: the pointer is NULL */
	REPAIRED,	/* by us */
	STRANGE,	/* not what the layout says: hands off */
};

/*
 * What this device is. These witnesses say that it is a virtio_pci_device of the layout that we know: its del_vqs()
 * is the function with the defect, its pci_dev is the parent in the device tree, the parent's drvdata leads back, and
 * the members beside is_avq hold the functions of those names. The caller holds a reference on the device.
 */
static enum state ejectable_examine(struct virtio_device *vdev)
{
	struct device *parent = vdev->dev.parent;
	const struct virtio_config_ops *config = READ_ONCE(vdev->config);
	void *vp_dev = vp_dev_of(vdev), *drvdata;
	is_avq_fn is_avq;
	size_t i;

	if (!parent || !dev_is_pci(parent) || !config || !ejectable_is_function(config->del_vqs, FUNCTION))
		return OTHER;
	drvdata = pci_get_drvdata(to_pci_dev(parent));
	if (!drvdata)
		return OTHER;
	if (drvdata != vp_dev || *(struct pci_dev **)(vp_dev + EJECTABLE_PCI_DEV_OFFSET) != to_pci_dev(parent))
		return STRANGE;
	for (i = 0; i < ARRAY_SIZE(neighbours); i++)
		if (!ejectable_is_function(*(void **)(vp_dev + neighbours[i].offset), neighbours[i].name))
			return STRANGE;
	is_avq = READ_ONCE(*is_avq_of(vdev));
	if (is_avq == ejectable_no_avq)
		return REPAIRED;
	/* Negotiated by now, or not yet: a modern device has its function in either case, a legacy one never does. */
	if (!is_avq)
		return virtio_has_feature(vdev, VIRTIO_F_VERSION_1) ? STRANGE : BARE;
	return ejectable_is_function(is_avq, "vp_is_avq") ? MODERN : STRANGE;
}

static struct virtio_device *argument(struct pt_regs *regs)
{
	return (struct virtio_device *)regs_get_kernel_argument(regs, 0);
}

/* At the entry of vp_del_vqs(). */
static int ejectable_fill(struct kprobe *unused, struct pt_regs *regs)
{
	struct virtio_device *vdev = argument(regs);

	switch (ejectable_examine(vdev)) {
	case BARE:
		if (!try_module_get(THIS_MODULE))
			break;
		if (cmpxchg(is_avq_of(vdev), (is_avq_fn)NULL, ejectable_no_avq)) {
			module_put(THIS_MODULE);
			break;
		}
		atomic_long_inc(&acted);
		dev_info(&vdev->dev, "a legacy device lets go of its queues: the empty pointer was filled\n");
		break;
	case STRANGE:
		atomic_long_inc(&refused);
		dev_warn(&vdev->dev, "not as this module was built for: left alone\n");
		break;
	default:
		break;
	}
	return 0;
}

/* Which of the calls have to be followed to their end; 0 follows. Before or after ejectable_fill(), as it comes. */
static int ejectable_entry(struct kretprobe_instance *call, struct pt_regs *regs)
{
	struct virtio_device *vdev = argument(regs);
	enum state state = ejectable_examine(vdev);

	*(struct virtio_device **)call->data = vdev;
	return state != BARE && state != REPAIRED;
}

/* At the end of vp_del_vqs(). */
static int ejectable_empty(struct kretprobe_instance *call, struct pt_regs *unused)
{
	struct virtio_device *vdev = *(struct virtio_device **)call->data;

	if (cmpxchg(is_avq_of(vdev), ejectable_no_avq, (is_avq_fn)NULL) == ejectable_no_avq)
		module_put(THIS_MODULE);
	return 0;
}

static DEFINE_MUTEX(arming);
static bool armed;
static struct kprobe ejectable_kprobe;
static struct kretprobe ejectable_kretprobe;

static int counter_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read((atomic_long_t *)param->arg));
}

static int missed_get(char *buffer, const struct kernel_param *unused)
{
	return sysfs_emit(buffer, "%ld\n", atomic_long_read(&missed) + READ_ONCE(ejectable_kretprobe.nmissed));
}

static const struct kernel_param_ops counter_ops = { .get = counter_get };
static const struct kernel_param_ops missed_ops = { .get = missed_get };
module_param_cb(acted, &counter_ops, &acted, 0444);
MODULE_PARM_DESC(acted, "how often vp_del_vqs() would have called address 0, and did not");
module_param_cb(refused, &counter_ops, &refused, 0444);
MODULE_PARM_DESC(refused, "how often a device was not what the layout says, and was left alone");
module_param_cb(missed, &missed_ops, NULL, 0444);
MODULE_PARM_DESC(missed, "how often the end of a call was not watched: the pointer stays filled");
module_param(armed, bool, 0444);
MODULE_PARM_DESC(armed, "whether vp_del_vqs() is watched now");

static int arm_locked(void)
{
	/* Within the module where it is one: another module may have a function of that name. */
	const char *where = IN_MODULE ? DRIVER ":" FUNCTION : FUNCTION;
	int error;

	if (armed)
		return 0;
	memset(&ejectable_kprobe, 0, sizeof(ejectable_kprobe));
	ejectable_kprobe.symbol_name = where;
	ejectable_kprobe.pre_handler = ejectable_fill;
	memset(&ejectable_kretprobe, 0, sizeof(ejectable_kretprobe));
	ejectable_kretprobe.kp.symbol_name = where;
	ejectable_kretprobe.entry_handler = ejectable_entry;
	ejectable_kretprobe.handler = ejectable_empty;
	ejectable_kretprobe.data_size = sizeof(struct virtio_device *);
	ejectable_kretprobe.maxactive = INSTANCES;
	/* What empties comes first: no pointer is filled that nobody empties. */
	error = register_kretprobe(&ejectable_kretprobe);
	if (error)
		return error;
	error = register_kprobe(&ejectable_kprobe);
	if (error)
		unregister_kretprobe(&ejectable_kretprobe);
	armed = !error;
	return error;
}

static void disarm_locked(void)
{
	if (!armed)
		return;
	armed = false;
	unregister_kprobe(&ejectable_kprobe);
	unregister_kretprobe(&ejectable_kretprobe);
	atomic_long_add(ejectable_kretprobe.nmissed, &missed);
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
	return true; /* sysfs does not show it yet: the witnesses of ejectable_examine() have to do */
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

static int is_virtio(struct device *dev, void *unused)
{
	return dev->bus && !strcmp(dev->bus->name, "virtio");
}

/*
 * Whether each device that is there now is one that the layout fits. Nothing is written, and no lock of a device is
 * taken. A reference on the PCI device alone would not do: the virtio device below it is what is freed.
 */
static int look_at_all(void)
{
	struct pci_dev *pdev = NULL;
	struct device *child;
	int error = 0;

	for_each_pci_dev(pdev) {
		child = device_find_child(&pdev->dev, NULL, is_virtio);
		if (!child)
			continue;
		if (ejectable_examine(dev_to_virtio(child)) == STRANGE) {
			dev_err(child, "not as this module was built for: nothing was changed\n");
			error = -EINVAL;
		}
		put_device(child);
	}
	return error;
}

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
	pr_info("legacy virtio devices can be unplugged while this is loaded (CVE-2024-42134)\n");
	return 0;
}

static void __exit ejectable_live_exit(void)
{
	unregister_module_notifier(&module_events);
	disarm();
	pr_warn("unloaded, the danger is back: unplugging a legacy virtio device crashes this kernel\n");
}

module_init(ejectable_live_init);
module_exit(ejectable_live_exit);

/* What it was built for, for whoever looks at the kernel's memory: `ejectable check`. */
static const char ejectable_target[] __used = EJECTABLE_BUILD_ID " " EJECTABLE_DRIVER_BUILD_ID
	" " __stringify(EJECTABLE_IS_AVQ_OFFSET);

/* The same for `modinfo`, and for whoever loads it. */
MODULE_INFO(ejectable_release, EJECTABLE_RELEASE);
MODULE_INFO(ejectable_version, EJECTABLE_VERSION);
MODULE_INFO(ejectable_build_id, EJECTABLE_BUILD_ID);
MODULE_INFO(ejectable_driver_build_id, EJECTABLE_DRIVER_BUILD_ID);
MODULE_INFO(ejectable_is_avq_offset, __stringify(EJECTABLE_IS_AVQ_OFFSET));
MODULE_DESCRIPTION("Lets legacy virtio devices be unplugged on a kernel with CVE-2024-42134");
MODULE_VERSION(EJECTABLE_TOOL_VERSION);
MODULE_LICENSE("GPL");
