# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-53194: a slot outlives the bus that it points to."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "PciSlotUaf"]


class PciSlotUaf(Advisory):
    """pci_create_slot() stores the bus of a slot without a reference on it."""

    id = "CVE-2024-53194"
    title = "unplugging a bridge with hotplug slots below it uses a bus that was freed"
    code = CodeUnder(functions=("pci_create_slot",))
    proven = False
    operations = race(Effect.CORRUPTION, *UNPLUG)
    remedies = (
        *USUAL,
        Workaround("inner-first", "Unplug what is in the inner slots before the bridge that they hang below."),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Make a slot."""
        from ejectable.advisories.pci_slot_uaf.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A bridge that can be unplugged and has hotplug slots below it."""
        del finding
        if device.bus != "pci" or "slots_below" not in device.attributes:
            return None
        return meets("hotplug slots hang below it", "a slot that is still held would point to a bus that was freed")

    @property
    def signature(self) -> Signature:
        """A use after free in the release of a slot."""
        return Signature(
            kinds=("gpf", "paging-fault", "null-deref", "kasan"),
            at=r"pci_slot_release|pci_slot_\w{1,40}|pci_destroy_slot",
            needs=(
                r"pci_slot_release|pci_destroy_slot|pci_hp_\w{1,30}",
                r"kobject_put|pciehp_\w{1,40}|pci_remove_\w{1,30}",
            ),
            told="a slot used a bus that was freed",
        )


ADVISORY = PciSlotUaf()
