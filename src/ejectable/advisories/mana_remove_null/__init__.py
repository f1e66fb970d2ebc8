# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2026-53297: taking a MANA NIC away after its resume has failed reads a null pointer."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "ManaRemoveNull"]

DRIVER = "mana"


class ManaRemoveNull(Advisory):
    """A failed resume clears the device's context, and mana_remove() does not expect to be called again."""

    id = "CVE-2026-53297"
    title = "removing a MANA NIC whose resume has failed reads a null pointer in mana_remove()"
    proven = False
    code = CodeUnder(
        functions=("mana_remove",),
        module="mana",
        option="CONFIG_MICROSOFT_MANA",
        menus=("CONFIG_NET_VENDOR_MICROSOFT",),
    )
    operations = always(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD, Operation.SHUTDOWN)
    remedies = (
        *USUAL,
        Workaround(
            "no-hibernation",
            "Without hibernation no resume can fail; turn accelerated networking off before the host is serviced.",
            ("systemctl mask hibernate.target",),
            avoids=tuple(one.operation for one in operations),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Remove one device twice."""
        from ejectable.advisories.mana_remove_null.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A MANA NIC that is bound to its driver and has lost its interface, as after a failed resume."""
        del finding
        if device.bus != "pci" or device.driver != DRIVER:
            return None
        if device.nodes:
            return spared(f"its resume has not failed: its interface {device.nodes[0]} is there")
        if device.attributes.get("net") != "none":
            return unsure("whether it has an interface could not be seen")
        return meets("it is bound and has no interface, as after a failed resume", "mana_remove() would read address 0")

    @property
    def signature(self) -> Signature:
        """The read of address 0 in mana_remove()."""
        return Signature(
            kinds=("null-deref", "paging-fault"),
            at="mana_remove",
            needs=("mana_gd_remove|mana_gd_shutdown|pci_device_remove|pci_device_shutdown",),
            address=0,
            told="mana_remove() read the context that a failed resume had cleared",
        )


ADVISORY = ManaRemoveNull()
