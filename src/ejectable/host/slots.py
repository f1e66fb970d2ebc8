# SPDX-License-Identifier: GPL-2.0-or-later
"""Which PCI functions sit where they can be unplugged: ACPI (acpiphp), PCI Express (pciehp) and SHPC slots."""

import re

from ejectable.host.root import Root

__all__ = ["Slots"]

SLOTS = "/sys/bus/pci/slots"


class Slots:
    """The slots that some hotplug driver looks after, by address without the function: `0000:00:06`."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: set[str] = set()
        self._plain: set[str] = set()
        for name in root.list(SLOTS) or ():
            address = root.text(f"{SLOTS}/{name}/address", 64)
            if not address:
                continue
            # Any driver may name a slot; only one that can power it off has a `power` file
            # (drivers/pci/hotplug/pci_hotplug_core.c, has_power_file).
            (self._known if root.exists(f"{SLOTS}/{name}/power") else self._plain).add(address)

    def hotpluggable(self, path: str) -> bool | None:
        """Whether the PCI function at this resolved sysfs path, or a bridge above it, sits in a hotplug slot.

        `None` where no hotplug driver shows any slot, so that nothing can be told.
        """
        while True:
            address = path.rpartition("/")[2]
            if not re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address):
                break
            # `eject` stands beside a device whose ACPI node has _EJ0: drivers/acpi/device_sysfs.c.
            if address.rpartition(".")[0] in self._known or self._root.exists(f"{path}/firmware_node/eject"):
                return True
            path = path.rpartition("/")[0]
        return False if self._known else None
