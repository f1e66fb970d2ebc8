# SPDX-License-Identifier: GPL-2.0-or-later
"""del_gendisk() on a disk without partitions: is its queue frozen before the disk's mutex is taken, or under it?"""

from ejectable.experiment import Bench, Result, Scene, calls, ends, state
from ejectable.kernel.machine import Object, Outcome

__all__ = ["FUNCTIONS", "experiment"]

FUNCTIONS = ("__del_gendisk", "del_gendisk")  # the first one since v6.16
FREEZES = ("__blk_mark_disk_dead", "blk_freeze_queue_start", "blk_mark_disk_dead", "blk_start_freeze_queue")
LOCKS = ("mutex_lock", "mutex_lock_nested", "__mutex_lock")


def experiment(bench: Bench) -> Result:
    """Where the queue is frozen, against the two times that the mutex is taken."""
    function = next((name for name in FUNCTIONS if bench.has(name)), FUNCTIONS[-1])
    scene = bench.scene(stubs={"disk_live": 1})
    if not scene.has("gendisk", "open_mutex"):
        # Before a8698707a183 "move bd_mutex to struct gendisk" (v5.14).
        return bench.not_there("a disk has no mutex of its own yet: its removal does not take one twice")
    disk = _disk(scene)
    outcome = scene.run(function, disk)
    mutex = disk.sub("open_mutex").__index__()
    order = _order(outcome, mutex)
    control = ends(outcome) & calls(outcome, *LOCKS, first=disk.sub("open_mutex"))
    if order.count("lock") < 2 and "freeze" in order:
        # Before eec1be4c30df (v6.5) the mutex was not taken again after the queue was frozen.
        once = state(outcome, "the disk's mutex is not taken again once the queue is frozen", True)
        return bench.decide(affected=~once, fixed=once, control=control, absent=True)
    frozen = order.index("freeze") if "freeze" in order else -1
    between = order[:frozen].count("lock")  # how often the mutex was taken before
    return bench.decide(
        affected=state(outcome, "the queue is frozen before the disk's mutex is taken again", between == 1),
        fixed=state(outcome, "the queue is frozen under the disk's mutex, after it was taken again", between == 2),
        control=control,
    )


def _order(outcome: Outcome, mutex: int) -> list[str]:
    found = []
    for call in outcome.calls:
        name = call.name.partition(".")[0]
        if name in FREEZES:
            found.append("freeze")
        elif name in LOCKS and call.arguments[0] == mutex:
            found.append("lock")
    return found


def _disk(scene: Scene) -> Object:
    """A disk with a queue and no partitions, as the members of this kernel want it."""
    queue, whole = scene.new("request_queue", mq_ops=scene.alloc()), scene.new("block_device")
    disk = scene.new("gendisk", queue=queue, part0=whole, bdi=scene.new("backing_dev_info"))
    if queue.has("disk"):
        queue.disk = disk
    for member, value in (("bd_inode", "inode"), ("bd_queue", None), ("bd_disk", None)):
        if whole.has(member):
            setattr(whole, member, scene.new(value) if value else queue if member == "bd_queue" else disk)
    return disk
