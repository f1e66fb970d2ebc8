# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-blk-no-drain: suspend deletes a virtio disk's queues with requests in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.blk_suspend import AWAKE, CODE
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.model import Device, Effect, Evidence, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result
    from ejectable.kernel.program import Program

__all__ = ["ADVISORY", "BlkNoDrain"]


class BlkNoDrain(Advisory):
    """virtblk_freeze() does not wait for the requests that the host has not answered."""

    id = "virtio-blk-no-drain"
    title = "suspend deletes a virtio disk's queues while requests are in them"
    proven = False
    code = CODE
    operations = race(Effect.HANG, Operation.SUSPEND)
    remedies = ("upgrade", AWAKE)

    def experiment(self, bench: "Bench") -> "Result":
        """Suspend a disk."""
        from ejectable.advisories.blk_no_drain.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A virtio disk with its driver."""
        del finding
        if device.bus != "virtio" or device.kind != "disk":
            return None
        if device.driver is None:
            return spared("no driver is bound: it has no requests")
        return meets("a virtio disk", "requests that are under way at suspend may be lost")

    def opinions(self, program: "Program", result: "Result") -> Sequence[Evidence]:
        """The calls in the code, read without running it."""
        del result
        from ejectable.advisories.blk_suspend.experiment import read

        return read(program, drain=True)


ADVISORY = BlkNoDrain()
