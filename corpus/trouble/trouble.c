// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What may befall a machine beside ejectable_live, made to happen in a guest:
 *
 *	hold=0000:00:01.0	a thread takes the lock of this PCI device and never lets go
 *	pause=3000		the next deletion of a virtqueue takes so many milliseconds: vp_del_vqs() is under way meanwhile
 *	die=1			the next deletion kills its thread, in the middle of vp_del_vqs()
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>

static char *hold;
static int pause, die;
module_param(hold, charp, 0444);
module_param(pause, int, 0444);
module_param(die, int, 0444);

static struct kprobe at_deletion = { .symbol_name = "vring_del_virtqueue" };
static bool happened;

static int holder(void *device)
{
	device_lock(device);
	pr_info("trouble: the lock is held\n");
	while (!kthread_should_stop())
		ssleep(1);
	device_unlock(device);
	return 0;
}

static noinline void instead(void *info)
{
	pr_info("trouble: in the middle of vp_del_vqs()\n");
	if (die)
		BUG();
	msleep(pause);
	((void (*)(void *))at_deletion.addr)(info);
	pr_info("trouble: it is over\n");
}

static int divert(struct kprobe *probe, struct pt_regs *regs)
{
	if (happened)
		return 0;
	happened = true;
	instruction_pointer_set(regs, (unsigned long)instead);
	return 1;
}

static int __init trouble_init(void)
{
	struct device *device;

	if (hold) {
		device = bus_find_device_by_name(&pci_bus_type, NULL, hold);
		if (!device)
			return -ENODEV;
		kthread_run(holder, device, "holder");
	}
	if (!pause && !die)
		return 0;
	at_deletion.pre_handler = divert;
	return register_kprobe(&at_deletion);
}

module_init(trouble_init);
MODULE_DESCRIPTION("Trouble for tests of ejectable_live");
MODULE_LICENSE("GPL");
