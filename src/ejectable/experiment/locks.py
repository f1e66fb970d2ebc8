# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks, out of the calls of a run: who holds what when, what is taken twice, in which order, and who waits under one.

Lock functions are answered, not run; their names tell what they do (include/linux/{mutex,rwsem,spinlock}.h). A lock is
its address; one that has no address (pci_lock_rescan_remove() takes a mutex of its own) is named by its function.
"""

import re
from collections.abc import Iterator

from ejectable.experiment.observations import Observation
from ejectable.kernel.machine import Call, Outcome

__all__ = ["Lock", "held", "locked_twice", "order_of", "waits_under"]

Lock = int | str

TAKE = re.compile(
    r"(?:rt_)?mutex_lock(?:_nested|_interruptible(?:_nested)?|_killable(?:_nested)?|_io(?:_nested)?)?|__mutex_lock"
    r"|down(?:_read|_write)?(?:_nested|_interruptible|_killable|_nest_lock)*"
    r"|_raw_(?:spin|read|write)_lock(?:_irq|_irqsave|_bh|_nested|_irqsave_nested)*|rt_spin_lock|queued_spin_lock_slowpath"
)
TRY = re.compile(r"mutex_trylock|down_(?:read|write)_trylock|_raw_spin_trylock(?:_bh|_irqsave)?")
DROP = re.compile(
    r"(?:rt_)?mutex_unlock|up(?:_read|_write)?"
    r"|_raw_(?:spin|read|write)_unlock(?:_irq|_irqrestore|_bh)?|rt_spin_unlock"
    r"|(?:__raw_callee_save_)?_*native_queued_spin_unlock|__raw_callee_save___native_queued_spin_unlock"
)
# Functions that take or drop a lock of their own: (take, drop) → the lock's name.
OWN = {
    "pci_lock_rescan_remove": ("take", "pci_rescan_remove_lock"),
    "pci_unlock_rescan_remove": ("drop", "pci_rescan_remove_lock"),
    "rtnl_lock": ("take", "rtnl_mutex"),
    "rtnl_unlock": ("drop", "rtnl_mutex"),
    "cpus_read_lock": ("take", "cpu_hotplug_lock"),
    "cpus_read_unlock": ("drop", "cpu_hotplug_lock"),
    "lock_system_sleep": ("take", "system_transition_mutex"),
    "unlock_system_sleep": ("drop", "system_transition_mutex"),
}
# What returns only when somebody else has done something.
WAITS = re.compile(
    r"blk_mq_freeze_queue(?:_wait|_nomemsave)?|blk_freeze_queue|(?:__)?flush_work(?:_sync)?|flush_workqueue|drain_workqueue"
    r"|cancel_(?:delayed_)?work_sync|wait_for_completion\w*|napi_disable|synchronize_\w+|kthread_stop|del_timer_sync"
    r"|timer_delete_sync|blk_mq_wait_quiesce_done|__synchronize_srcu|schedule_timeout\w*|wait_woken|msleep"
    r"|invalidate_bdev|sync_blockdev\w*|filemap_write_and_wait_range|filemap_fdatawait_range"
)


def held(outcome: Outcome) -> Iterator[tuple[Call, frozenset[Lock]]]:
    """Each call of a run with the locks that were held when it was made."""
    now: list[Lock] = []
    for call in outcome.calls:
        yield call, frozenset(now)
        taken, dropped = _taken(call), _dropped(call)
        if taken is not None:
            now.append(taken)
        if dropped is not None and dropped in now:
            now.reverse()
            now.remove(dropped)
            now.reverse()


def locked_twice(outcome: Outcome, lock: Lock | None = None) -> Observation:
    """A lock was taken that the run already held: it waits for itself, for ever. Of `lock` only, if one is given."""
    for call, holds in held(outcome):
        taken = _taken(call)
        if taken is not None and taken in holds and lock in (None, taken):
            return Observation(True, f"{call.name}() at {call.at} takes a lock that is held already", (outcome,))
    return Observation(False, "no lock was taken twice", (outcome,))


def order_of(outcome: Outcome, one: Lock, other: Lock) -> Observation:
    """The lock `other` was taken while `one` was held."""
    for call, holds in held(outcome):
        if _taken(call) == other and one in holds:
            return Observation(True, f"{call.name}() at {call.at} takes the second lock under the first", (outcome,))
    return Observation(False, "the second lock was not taken under the first", (outcome,))


def waits_under(outcome: Outcome, lock: Lock, *names: str) -> Observation:
    """Something that waits for others was called while `lock` was held; one of `names`, if any are given."""
    for call, holds in held(outcome):
        waits = call.name in names if names else WAITS.fullmatch(call.name) is not None
        if waits and lock in holds:
            return Observation(True, f"{call.name}() at {call.at} waits while the lock is held", (outcome,))
    return Observation(False, "nothing waited while the lock was held", (outcome,))


def _taken(call: Call) -> Lock | None:
    kind, name = OWN.get(call.name, ("", ""))
    if kind == "take":
        return name
    if TAKE.fullmatch(call.name) or (TRY.fullmatch(call.name) and call.answer & 0xFF):
        return call.arguments[0]
    return None


def _dropped(call: Call) -> Lock | None:
    kind, name = OWN.get(call.name, ("", ""))
    if kind == "drop":
        return name
    return call.arguments[0] if DROP.fullmatch(call.name) else None
