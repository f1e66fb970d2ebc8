# SPDX-License-Identifier: GPL-2.0-or-later
"""pciehp-abba: a device is reset while its slot is emptied."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "PciehpAbba"]


class PciehpAbba(Advisory):
    """pciehp takes the lock of a device under the reset lock of its slot; a reset takes them the other way round."""

    id = "pciehp-abba"
    title = "a reset of a device and the removal from its slot wait for each other"
    code = CodeUnder(
        functions=("pciehp_unconfigure_device",),
        option="CONFIG_HOTPLUG_PCI_PCIE",
        menus=("CONFIG_HOTPLUG_PCI", "CONFIG_PCIEPORTBUS"),
    )
    proven = False
    operations = race(Effect.HANG, Operation.PCIE_HOTPLUG, Operation.SURPRISE_REMOVAL, Operation.RESET)
    remedies = (
        *USUAL,
        Workaround("no-reset", "Reset nothing in a slot that is being emptied: stop guests that use the device first."),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Empty a slot with one device in it."""
        from ejectable.advisories.pciehp_abba.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A device in a slot that pciehp looks after."""
        del finding
        if "pciehp" not in device.attributes:
            return None
        return meets("pciehp looks after its slot", "a reset of it at the same time would hang, and the slot with it")

    @property
    def signature(self) -> Signature:
        """Two tasks that wait for each other: the removal, and the reset."""
        return Signature(
            kinds=("hung-task",),
            at=r"device_release_driver\w{0,20}|__device_driver_lock|__mutex_lock|mutex_lock|pciehp_unconfigure_device",
            needs=("pciehp_unconfigure_device", r"pciehp_\w{1,40}"),
            pair=(
                r"pciehp_reset_slot|pci_slot_reset|pci_reset_\w{1,30}",
                r"down_write|rwsem_\w{1,40}|pci_reset_\w{1,30}",
            ),
            told="the removal from a slot waits for a device that is being reset",
        )


ADVISORY = PciehpAbba()
