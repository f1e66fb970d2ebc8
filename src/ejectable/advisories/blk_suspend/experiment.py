# SPDX-License-Identifier: GPL-2.0-or-later
"""virtblk_freeze() run: what becomes of the disk's request queue before the device's queues are deleted, and after."""

from ejectable.experiment import Bench, Observation, Result, calls, calls_before, ends, state
from ejectable.kernel.code import listing
from ejectable.kernel.program import Program
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["Frozen", "experiment", "read"]

FUNCTION, PART = "virtblk_freeze", "virtblk_freeze_priv"  # the second since v6.17
# block/blk-mq.c; the names changed in v6.14 (_nomemsave).
FREEZE = ("blk_mq_freeze_queue", "blk_mq_freeze_queue_nomemsave", "blk_freeze_queue", "blk_mq_freeze_queue_wait")
THAW = ("blk_mq_unfreeze_queue", "blk_mq_unfreeze_queue_nomemrestore", "__blk_mq_unfreeze_queue")
QUIESCE = ("blk_mq_quiesce_queue", "blk_mq_quiesce_queue_nowait", "blk_mq_stop_hw_queues")
DELETE = "del_vqs"


class Frozen:
    """What virtblk_freeze() did to a disk. A name with "freeze" that is not known here keeps it undecided."""

    def __init__(self, bench: Bench) -> None:
        scene = bench.scene(follow=(f"{FUNCTION}*",))
        queue, device = scene.new("request_queue"), scene.new("virtio_device")
        disk = scene.new("virtio_blk", vdev=device, disk=scene.new("gendisk", queue=queue))
        device.set(priv=disk, config=scene.operations("virtio_config_ops"))
        self.outcome = outcome = scene.run(FUNCTION, device)
        foreign = [call.name for call in outcome.calls if "freeze" in call.name and call.name not in FREEZE + THAW]
        self.control = ends(outcome) & calls(outcome, DELETE)
        self.control &= state(outcome, f"{', '.join(foreign) or 'nothing unknown'} was called", not foreign)
        drained = calls_before(outcome, FREEZE, (DELETE,)) & calls(outcome, *FREEZE, first=queue)
        self.drained: Observation = drained
        self.undrained: Observation = ~calls(outcome, *FREEZE) & calls_before(outcome, QUIESCE, (DELETE,))
        self.thawed: Observation = calls(outcome, *THAW, first=queue)


def experiment(bench: Bench) -> Result:
    """Whether the disk's request queue is left frozen while the machine sleeps."""
    run = Frozen(bench)
    return bench.decide(
        affected=run.drained & ~calls(run.outcome, *THAW),
        fixed=run.drained & run.thawed | run.undrained,
        control=run.control,
        absent=bool(run.undrained),
    )


def read(program: Program, *, drain: bool) -> list[Evidence]:
    """What the calls in the code say, of no draining or of the frozen queue; nothing where neither call is found."""
    symbols = program.symbols
    found = [symbols.at(one.target) for name in (FUNCTION, PART) for one in listing(program, name) if one.target]
    names = {symbol[0].name for symbol in found if symbol is not None and not symbol[1]}
    freezes, thaws = names.intersection(FREEZE), names.intersection(THAW)
    if not freezes and not names.intersection(QUIESCE):
        return []
    if drain:
        says = Status.FIXED if freezes else Status.AFFECTED
    elif freezes:
        says = Status.FIXED if thaws else Status.AFFECTED
    else:
        says = Status.NOT_AFFECTED
    detail = f"{FUNCTION}() calls {', '.join(sorted(freezes | thaws)) or 'nothing that waits for requests'}"
    return [Evidence(EvidenceKind.DISASSEMBLY, says, detail, (FUNCTION,))]
