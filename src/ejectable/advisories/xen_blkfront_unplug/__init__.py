# SPDX-License-Identifier: GPL-2.0-or-later
"""xen-blkfront-unplug: a ring is freed while its interrupt handler may still run."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "XenBlkfrontUnplug"]


class XenBlkfrontUnplug(Advisory):
    """blkif_free_ring() unbinds the interrupt last."""

    id = "xen-blkfront-unplug"
    title = "detaching a Xen disk frees a ring that its interrupt handler may still use"
    code = CodeUnder(
        functions=("blkif_free_ring", "blkif_free"),
        module="xen_blkfront",
        option="CONFIG_XEN_BLKDEV_FRONTEND",
        menus=("CONFIG_XEN",),
    )
    proven = False
    operations = race(Effect.CORRUPTION, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD)
    remedies = (
        *USUAL,
        Workaround(
            "idle-first", "Without requests under way nothing answers: unmount the disk and sync first.", ("sync",)
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Free a ring."""
        from ejectable.advisories.xen_blkfront_unplug.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A disk of Xen's."""
        del finding
        if device.bus != "xen" or device.kind != "disk":
            return None
        if device.driver is None:
            return spared("no driver is bound: it has no ring")
        return meets("a disk of Xen's", "its interrupt handler may run while its ring is freed")

    @property
    def signature(self) -> Signature:
        """A fault in the interrupt handler of the ring."""
        return Signature(
            kinds=("null-deref", "paging-fault", "gpf", "kasan"),
            at=r"blkif_interrupt|blkif_completion|blkif_free\w{0,10}",
            needs=(
                r"blkif_interrupt|blkif_free\w{0,10}",
                r"handle_irq\w{0,30}|__handle_irq\w{0,30}|xennet_\w{1,5}|blkfront_remove",
            ),
            told="the ring of a disk was used after it was freed",
        )


ADVISORY = XenBlkfrontUnplug()
