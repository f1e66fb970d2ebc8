# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2026-64326: a disk that is gone is written to."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "MarkDeadSyncs"]


class MarkDeadSyncs(Advisory):
    """bdev_mark_dead() syncs a block device although it is told that the device has vanished."""

    id = "CVE-2026-64326"
    title = "a block device with dirty pages is synced after it is gone, which hangs"
    code = CodeUnder(functions=("bdev_mark_dead",), beside=("sync_blockdev", "bdev_disk_changed"))
    proven = False
    operations = race(Effect.HANG, Operation.SURPRISE_REMOVAL, Operation.RESET)
    remedies = (
        *USUAL,
        Workaround(
            "nothing-dirty",
            "Without dirty pages there is nothing to write: stop what uses the bare device, and sync, before it goes.",
            ("sync", "blockdev --flushbufs /dev/{node}"),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Mark a device dead, gone by surprise and in good order."""
        from ejectable.advisories.mark_dead_syncs.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """An NVMe disk: its driver tells the block layer of a device that is gone."""
        del finding
        if device.bus != "pci" or device.kind != "nvme":
            return None
        if "namespaces" not in device.attributes:
            return unsure("its disks could not be seen")
        if not device.nodes:
            return spared("it has no disks")
        return meets("its disks may have dirty pages", "they would be written to a device that is gone")

    @property
    def signature(self) -> Signature:
        """A task that waits for a write under the code that marks a disk dead."""
        return Signature(
            kinds=("hung-task",),
            at=r"folio_wait_\w{1,40}|io_schedule|sync_blockdev|filemap_\w{1,40}|bdev_mark_dead",
            needs=("bdev_mark_dead", r"blk_mark_disk_dead|__blk_mark_disk_dead|nvme_\w{1,40}|del_gendisk"),
            told="a dead disk is being synced",
        )


ADVISORY = MarkDeadSyncs()
