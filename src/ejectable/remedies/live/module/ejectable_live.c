// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Repair CVE-2024-42134 in the kernel that runs.
 *
 * Since fd27ef6b44be ("virtio-pci: Introduce admin virtqueue") vp_del_vqs() calls the pointer is_avq of struct
 * virtio_pci_device for each virtqueue, and only the modern probe sets it: taking a legacy device away calls
 * address 0. This module puts a function there that answers what is true of every legacy device: no queue of it is
 * an admin virtqueue.
 *
 * The struct is private to drivers/virtio, so its layout is a constant of the build, taken from the BTF of one
 * kernel (ejectable_target.h, which `ejectable fix live` writes). It is believed only as far as it can be tested:
 * on that kernel alone, and on a device alone of which three things hold that no other layout would give by chance
 * (see examine()).
 *
 * How it reaches every device in time
 *
 * A device's queues exist from its virtio driver's probe() to its remove(), and vp_del_vqs() can run from the first
 * moment on: a failing probe calls it too. The virtio bus tells of a device (BUS_NOTIFY_ADD_DEVICE) after it is on
 * the bus's list and before any driver is offered it. So whoever listens first and walks the list afterwards misses
 * none: it was on the list, or is told of. Events of the PCI bus would not do, as the first after the PCI device is
 * known to be virtio's is BUS_NOTIFY_BOUND_DRIVER, when the virtio driver's probe() is already over.
 *
 * Writing takes no lock. Whoever holds a virtio device by reference holds its virtio_pci_device, which is freed by
 * the device's release() (virtio_pci_release_dev()); the walk and the notifier hold one. A worker that an earlier
 * Oops killed may hold device locks for ever, and loading must not wait for those.
 *
 * How it goes away
 *
 * Two things must not happen: that a pointer becomes NULL again while vp_del_vqs() walks the queues of that very
 * device, and that this code is unmapped while it is called. vp_del_vqs() runs below the lock of the virtio device
 * (its driver's probe() and remove()) or of its PCI device (virtio_pci_remove(), suspend and resume, reset). So each
 * pointer is put back with both held, the parent's first, as the driver core does it. The walk is over the PCI bus:
 * a virtio device that is being removed is off its own bus's list before its driver's remove() runs
 * (bus_remove_device()), but its PCI device is on the list, and locked, until virtio_pci_remove() is through
 * (pci_stop_dev(), then pci_destroy_dev()). When the walk is over, nobody is between vp_del_vqs() and the end of our
 * function, and nobody can get there. synchronize_rcu_tasks() then waits for whatever was in the middle of
 * something without having slept since: for callers that are not known.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt
#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/stringify.h>
#include <linux/utsname.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#include "ejectable_target.h"

static_assert(EJECTABLE_IS_AVQ_OFFSET % sizeof(void *) == 0);
static_assert(EJECTABLE_IS_AVQ_OFFSET + sizeof(void *) <= EJECTABLE_DEVICE_SIZE);
static_assert(EJECTABLE_PCI_DEV_OFFSET + sizeof(void *) <= EJECTABLE_DEVICE_SIZE);
static_assert(EJECTABLE_VDEV_OFFSET + sizeof(struct virtio_device) <= EJECTABLE_DEVICE_SIZE);

/* The member's own type, to the letter: kCFI compares a hash of it with one in front of the function. */
typedef bool (*is_avq_fn)(struct virtio_device *vdev, unsigned int index);

static bool ejectable_no_avq(struct virtio_device *vdev, unsigned int index)
{
	return false;
}

enum state {
	OTHER,		/* not virtio-pci's, or on its way out */
	MODERN,		/* its probe set the pointer */
	BARE,		/* legacy: the pointer is NULL */
	REPAIRED,	/* by us */
	STRANGE,	/* not what the layout says: hands off */
};

static void *vp_dev_of(struct virtio_device *vdev)
{
	return (void *)vdev - EJECTABLE_VDEV_OFFSET;
}

static is_avq_fn *is_avq_of(struct virtio_device *vdev)
{
	return vp_dev_of(vdev) + EJECTABLE_IS_AVQ_OFFSET;
}

/*
 * Whether `pointer` is the start of the function `name`, which the kernel exports to nobody but kallsyms. Link-time
 * optimisation appends ".llvm.<hash>" to names of static functions.
 */
static noinline bool is_function(const void *pointer, const char *name)
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

/*
 * What this device is. Three witnesses say that it is a virtio_pci_device of the layout that we know: its del_vqs()
 * is the function with the defect, its pci_dev is the parent in the device tree, and the parent's drvdata leads back.
 */
static enum state examine(struct virtio_device *vdev)
{
	struct device *parent = vdev->dev.parent;
	const struct virtio_config_ops *config = READ_ONCE(vdev->config);
	void *vp_dev = vp_dev_of(vdev), *drvdata;
	is_avq_fn is_avq;

	if (!parent || !dev_is_pci(parent) || !config || !is_function(config->del_vqs, "vp_del_vqs"))
		return OTHER;
	drvdata = pci_get_drvdata(to_pci_dev(parent));
	if (!drvdata)
		return OTHER;
	if (drvdata != vp_dev || *(struct pci_dev **)(vp_dev + EJECTABLE_PCI_DEV_OFFSET) != to_pci_dev(parent))
		return STRANGE;
	is_avq = READ_ONCE(*is_avq_of(vdev));
	if (is_avq == ejectable_no_avq)
		return REPAIRED;
	/* Negotiated by now, or not yet: a modern device has its function in either case, a legacy one never does. */
	if (!is_avq)
		return virtio_has_feature(vdev, VIRTIO_F_VERSION_1) ? STRANGE : BARE;
	return is_function(is_avq, "vp_is_avq") ? MODERN : STRANGE;
}

static void repair(struct virtio_device *vdev)
{
	switch (examine(vdev)) {
	case BARE:
		if (!cmpxchg(is_avq_of(vdev), (is_avq_fn)NULL, ejectable_no_avq))
			dev_info(&vdev->dev, "a legacy device: it can be unplugged now\n");
		break;
	case STRANGE:
		dev_warn(&vdev->dev, "not as this module was built for: left alone\n");
		break;
	default:
		break;
	}
}

static int repair_each(struct device *dev, void *unused)
{
	repair(dev_to_virtio(dev));
	return 0;
}

static int refuse_strange(struct device *dev, void *unused)
{
	if (examine(dev_to_virtio(dev)) != STRANGE)
		return 0;
	dev_err(dev, "not as this module was built for: nothing was changed\n");
	return -EINVAL;
}

/* Binding and unbinding a driver are last lines: a device that had none when we looked has one or loses it. */
static int virtio_bus_event(struct notifier_block *unused, unsigned long event, void *dev)
{
	if (event == BUS_NOTIFY_ADD_DEVICE || event == BUS_NOTIFY_BIND_DRIVER || event == BUS_NOTIFY_UNBIND_DRIVER)
		repair(dev_to_virtio(dev));
	return NOTIFY_DONE;
}

static struct notifier_block virtio_bus_events = { .notifier_call = virtio_bus_event };

/* The bus is not exported, but every driver is told it. This one takes no device: its table is empty. */
static const struct virtio_device_id no_device[] = { { 0 } };

static int no_probe(struct virtio_device *vdev)
{
	return -ENODEV;
}

static struct virtio_driver bus_finder = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.driver.suppress_bind_attrs = true,
	.id_table = no_device,
	.probe = no_probe,
};

static int withdraw_each(struct device *dev, void *count)
{
	struct virtio_device *vdev;
	void *vp_dev;

	device_lock(dev);
	vp_dev = dev->driver && !strcmp(dev->driver->name, "virtio-pci") ? pci_get_drvdata(to_pci_dev(dev)) : NULL;
	if (vp_dev) {
		vdev = vp_dev + EJECTABLE_VDEV_OFFSET;
		device_lock(&vdev->dev);
		if (examine(vdev) == REPAIRED &&
		    cmpxchg(is_avq_of(vdev), ejectable_no_avq, (is_avq_fn)NULL) == ejectable_no_avq)
			++*(unsigned int *)count;
		device_unlock(&vdev->dev);
	}
	device_unlock(dev);
	return 0;
}

static int __init ejectable_live_init(void)
{
	int error;

	/* The release alone names many builds; the version holds the time of the build (or what stands in for it). */
	if (strcmp(init_uts_ns.name.release, EJECTABLE_RELEASE) || strcmp(init_uts_ns.name.version, EJECTABLE_VERSION)) {
		pr_err("built for %s %s: refused\n", EJECTABLE_RELEASE, EJECTABLE_VERSION);
		return -ENOEXEC;
	}
	error = register_virtio_driver(&bus_finder);
	if (error)
		return error;
	error = bus_for_each_dev(bus_finder.driver.bus, NULL, NULL, refuse_strange);
	if (!error)
		error = bus_register_notifier(bus_finder.driver.bus, &virtio_bus_events);
	if (error) {
		unregister_virtio_driver(&bus_finder);
		return error;
	}
	bus_for_each_dev(bus_finder.driver.bus, NULL, NULL, repair_each);
	pr_info("legacy virtio devices can be unplugged while this is loaded (CVE-2024-42134)\n");
	return 0;
}

static void __exit ejectable_live_exit(void)
{
	unsigned int count = 0;

	bus_unregister_notifier(bus_finder.driver.bus, &virtio_bus_events);
	bus_for_each_dev(&pci_bus_type, NULL, &count, withdraw_each);
	synchronize_rcu_tasks();
	unregister_virtio_driver(&bus_finder);
	pr_warn("unloaded, the danger is back: unplugging a legacy virtio device crashes this kernel (%u now)\n", count);
}

module_init(ejectable_live_init);
module_exit(ejectable_live_exit);

/* What it was built for, for `modinfo` and for whoever loads it. */
MODULE_INFO(ejectable_release, EJECTABLE_RELEASE);
MODULE_INFO(ejectable_version, EJECTABLE_VERSION);
MODULE_INFO(ejectable_build_id, EJECTABLE_BUILD_ID);
MODULE_INFO(ejectable_driver_build_id, EJECTABLE_DRIVER_BUILD_ID);
MODULE_INFO(ejectable_is_avq_offset, __stringify(EJECTABLE_IS_AVQ_OFFSET));
MODULE_DESCRIPTION("Lets legacy virtio devices be unplugged on a kernel with CVE-2024-42134");
MODULE_VERSION(EJECTABLE_TOOL_VERSION);
MODULE_LICENSE("GPL");
