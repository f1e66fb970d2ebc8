# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-42294: a removable SCSI disk goes away while somebody closes it."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "GendiskFreezeFirst"]


class GendiskFreezeFirst(Advisory):
    """del_gendisk() freezes the queue of a disk before it takes the mutex that the closing task holds."""

    id = "CVE-2024-42294"
    title = "removing a removable SCSI disk while somebody closes it hangs"
    code = CodeUnder(functions=("__del_gendisk", "del_gendisk"))
    proven = False
    operations = race(Effect.HANG, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD)
    remedies = (
        *USUAL,
        Workaround(
            "close-first", "Close whatever has the disk open before it is detached.", ("fuser --verbose /dev/{node}",)
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Remove a disk."""
        from ejectable.advisories.gendisk_freeze_first.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A SCSI disk that says of itself that it is removable: only that one is sent a command on close."""
        del finding
        if device.bus != "scsi" or device.kind != "disk":
            return None
        removable = device.attributes.get("removable")
        if removable is None:
            return unsure("whether it is removable could not be read")
        if removable == "0":
            return spared("it is not removable: closing it sends no command")
        return meets("a removable disk", "closing it while it is removed would hang")

    @property
    def signature(self) -> Signature:
        """Two tasks that wait for each other: the removal, and whoever closes the disk."""
        return Signature(
            kinds=("hung-task",),
            at="__mutex_lock|mutex_lock|del_gendisk|__del_gendisk",
            needs=("del_gendisk|__del_gendisk", "sd_remove|__scsi_remove_device"),
            pair=(
                "blk_queue_enter|__bio_queue_enter",
                r"sd_release|scsi_set_medium_removal|bdev_release|blkdev_put\w{0,10}",
            ),
            told="the removal of a disk waits for somebody who closes it",
        )


ADVISORY = GendiskFreezeFirst()
