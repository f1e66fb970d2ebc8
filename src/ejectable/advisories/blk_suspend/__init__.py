# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-57946: a virtio disk's queue stays frozen while the machine suspends."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import Device, Effect, Evidence, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result
    from ejectable.kernel.program import Program

__all__ = ["ADVISORY", "AWAKE", "CODE", "BlkSuspendFrozen"]

CODE = CodeUnder(
    functions=("virtblk_freeze",),
    module="virtio_blk",
    option="CONFIG_VIRTIO_BLK",
    menus=("CONFIG_BLK_DEV",),
    entry="virtblk_probe",
    beside=("virtblk_probe",),  # a kernel that cannot suspend has no virtblk_freeze()
)
AWAKE = Workaround(
    "no-suspend",
    "A machine that never sleeps does not meet the defect; virtio-scsi disks do not have it either.",
    ("systemctl mask sleep.target suspend.target hibernate.target hybrid-sleep.target",),
    avoids=(Operation.SUSPEND,),
)


class BlkSuspendFrozen(Advisory):
    """virtblk_freeze() freezes the disk's request queue and leaves it so until the machine resumes."""

    id = "CVE-2024-57946"
    title = "a virtio disk's queue stays frozen while the machine suspends, which may hang"
    proven = False
    code = CODE
    operations = race(Effect.HANG, Operation.SUSPEND)
    remedies = ("upgrade", AWAKE)

    def experiment(self, bench: "Bench") -> "Result":
        """Suspend a disk."""
        from ejectable.advisories.blk_suspend.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A virtio disk with its driver."""
        del finding
        if device.bus != "virtio" or device.kind != "disk":
            return None
        if device.driver is None:
            return spared("no driver is bound: there is no queue to freeze")
        return meets("a virtio disk", "whoever needs it during suspend may wait for ever")

    def opinions(self, program: "Program", result: "Result") -> Sequence[Evidence]:
        """The calls in the code, read without running it."""
        del result
        from ejectable.advisories.blk_suspend.experiment import read

        return read(program, drain=False)

    @property
    def signature(self) -> Signature:
        """A task that waits for the frozen queue under the code that suspends devices."""
        return Signature(
            kinds=("hung-task",),
            at="blk_queue_enter|__bio_queue_enter|bio_queue_enter|blk_mq_get_request|blk_mq_alloc_request",
            needs=(
                r"dpm_\w{1,40}|_{0,2}device_suspend\w{0,40}|pm_suspend|hibernat\w{1,40}|suspend_\w{1,40}|enter_state",
            ),
            told="a task waits for a frozen disk while devices are suspended",
        )


ADVISORY = BlkSuspendFrozen()
