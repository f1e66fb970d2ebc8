# SPDX-License-Identifier: GPL-2.0-or-later
"""What set a crash off, from the rest of its trace: an ejection, an unbind, a suspend."""

import re
from collections.abc import Sequence
from functools import lru_cache

from ejectable.crash.frames import base
from ejectable.model import Trigger

__all__ = ["tells_trigger", "trigger_of"]

LONGEST = 80  # characters of a name that are looked at

# From the special to the general: a device that is removed on the way to a suspend is a suspend; an ACPI eject ends
# in the same PCI functions as a removal through sysfs.
SIGNS: tuple[tuple[Trigger, re.Pattern[str]], ...] = (
    (
        "module-unload",
        re.compile(
            r"(?:__do_sys_|__se_sys_|__x64_sys_|__arm64_sys_|__ia32_sys_|SyS_|SYSC_|"
            r"sys_)delete_module\w*\Z|free_module\Z"
        ),
    ),
    (
        "suspend",
        re.compile(
            r"(?:pm_suspend|state_store|hibernate|hibernation_\w+|device_suspend\w*|"
            r"__device_suspend\w*|dpm_suspend\w*|dpm_run_callback|async_suspend\w*"
            r"|pci_pm_(?:freeze|suspend|poweroff)\w*|pm_generic_(?:freeze|suspend)|\w+_freeze|"
            r"freeze_processes|suspend_devices_and_enter|enter_state|virtio_pci_freeze|"
            r"snapshot_ioctl)\Z"
        ),
    ),
    (
        "shutdown",
        re.compile(
            r"(?:device_shutdown|kernel_restart\w*|kernel_power_off|kernel_halt|pci_device_shutdown|"
            r"__do_sys_reboot|SYSC_reboot|SyS_reboot|virtio_dev_shutdown|kernel_kexec)\Z"
        ),
    ),
    (
        "acpi-eject",
        re.compile(
            r"(?:acpi_hotplug_work_fn|acpi_device_hotplug|acpiphp_\w+|hotplug_event\w*|disable_slot|"
            r"acpi_device_eject|acpi_scan_hot_remove|eject_store|acpi_eject_store|"
            r"trim_stale_devices)\Z"
        ),
    ),
    ("pcie-hotplug", re.compile(r"(?:pciehp_\w+|pcie_do_\w+|shpchp_\w+|shpc_\w+)\Z")),
    ("driver-unbind", re.compile(r"(?:unbind_store|device_driver_detach|drv_attr_store)\Z")),
    (
        "sysfs-remove",
        re.compile(
            r"(?:remove_store|pci_stop_and_remove_bus_device_locked|sysfs_kf_write_remove|"
            r"dev_rescan_store|bus_rescan_store)\Z"
        ),
    ),
)


def trigger_of(functions: Sequence[str], workqueue: str | None, process: str | None) -> Trigger | None:
    """The trigger that the frames tell, else the workqueue, else the thread's name."""
    found = _by_names(tuple(functions))
    if found is not None:
        return found
    said = f"{workqueue or ''} {process or ''}"
    if "kacpi_hotplug" in said or "kacpi_notify" in said:
        return "acpi-eject"
    if "pciehp" in said or "shpchp" in said:
        return "pcie-hotplug"
    return None


def tells_trigger(function: str, trigger: Trigger) -> bool:
    """Whether a function's name is what tells this trigger."""
    return any(sign.match(base(function)[:LONGEST]) for one, sign in SIGNS if one == trigger)


@lru_cache(maxsize=1024)
def _by_names(functions: tuple[str, ...]) -> Trigger | None:
    names = [base(function)[:LONGEST] for function in functions]
    for trigger, pattern in SIGNS:
        if any(pattern.match(name) for name in names):
            return trigger
    return None
