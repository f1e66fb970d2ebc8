# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2025-68756: an NVMe controller is removed while one of its commands hangs."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "QuiesceDeadlock"]


class QuiesceDeadlock(Advisory):
    """The timeout handler waits for the lock that the removal holds while it waits for the timeout handler."""

    id = "CVE-2025-68756"
    title = "removing an NVMe controller while a command times out hangs for ever"
    code = CodeUnder(functions=("blk_mq_quiesce_tagset",), beside=("blk_mq_quiesce_queue", "blk_mq_unquiesce_queue"))
    proven = False
    operations = race(Effect.HANG, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD)
    remedies = (
        *USUAL,
        Workaround(
            "io-timeout",
            "A command that is given more time does not time out while the controller is removed.",
            ("echo 4294967 > /sys/module/nvme_core/parameters/io_timeout",),
            cost="a disk that hangs is noticed late",
        ),
        Workaround("idle-first", "Unmount the disk and wait for its requests to end before it is detached.", ("sync",)),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Quiesce a set of tags that no queue is in."""
        from ejectable.advisories.quiesce_deadlock.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """An NVMe controller with several namespaces: their queues share tags."""
        del finding
        if device.bus != "pci" or device.kind != "nvme":
            return None
        if device.driver is None:
            return spared("no driver is bound: it has no queues")
        namespaces = device.attributes.get("namespaces", "")
        if not namespaces.isdigit():
            return unsure("its namespaces could not be counted")
        if int(namespaces) < 2:
            return spared("it has fewer than two namespaces: no other queue shares its tags")
        return meets(f"its {namespaces} namespaces share tags", "a command that times out meanwhile would never end")

    @property
    def signature(self) -> Signature:
        """Two tasks that wait for each other: the timeout handler, and the removal."""
        return Signature(
            kinds=("hung-task",),
            at="blk_mq_quiesce_tagset|__mutex_lock|mutex_lock|nvme_quiesce_io_queues",
            needs=("blk_mq_quiesce_tagset|nvme_quiesce_io_queues", "nvme_dev_disable|nvme_timeout|nvme_reset_work"),
            pair=(
                "blk_mq_freeze_queue_wait|blk_mq_freeze_queue",
                "blk_mq_exit_queue|blk_mq_update_tag_set_shared|del_gendisk",
            ),
            told="the handler of a timeout waits for the lock of the removal",
        )


ADVISORY = QuiesceDeadlock()
