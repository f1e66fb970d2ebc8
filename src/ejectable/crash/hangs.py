# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks that wait: what for, who holds it where the log tells, and which of them wait for each other.

Who holds a lock is told by lockdep's lists (`2 locks held by bash/123:`, with the lock's address), and since v6.15 by
the report of a hung task itself (`is blocked on a mutex likely owned by task bash:123`).
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from ejectable.crash.frames import base, location
from ejectable.model import Event, HeldLock, Task

__all__ = ["Wait", "blocked_on", "circles", "holds", "owner", "waits", "waits_for"]

FROZEN = "requests of a disk that are in flight (its queue is frozen)"
DISK = "a read or write of a disk"
# What a task waits for, by the innermost function that tells; the first that matches.
REASONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"blk_mq_freeze_queue\w{0,30}|blk_freeze_queue\w{0,30}", FROZEN),
        (r"blk_mq_get_tag|__?sbitmap_queue_get\w{0,30}", "a request of a disk to complete: all its tags are taken"),
        (r"blk_execute_rq\w{0,30}|scsi_execute\w{0,30}|nvme_submit_sync\w{0,30}", "the answer to a command for a disk"),
        (r"jbd2_\w{0,30}|xlog_\w{0,30}|xfs_log_\w{0,30}", "the journal of a file system"),
        (r"virtnet_send_command\w{0,30}|virtqueue_\w{0,30}wait\w{0,30}", "an answer from a virtio device"),
        (r"netdev_wait_allrefs\w{0,30}", "references to a network device"),
        (r"rtnl_lock\w{0,30}|rtnetlink_rcv\w{0,30}", "the lock of the network's configuration (rtnl)"),
        (r"synchronize_(?:rcu|srcu|net|sched)\w{0,30}|__synchronize_srcu|rcu_barrier", "RCU"),
        (r"__?flush_work\w{0,30}|(?:flush|drain)_workqueue|_{0,2}cancel_\w{0,8}work\w{0,5}", "a work to end"),
        (r"kthread_stop\w{0,30}|kthread_park", "a kernel thread to end"),
        (r"pci_lock_rescan_remove", "the lock of PCI's rescan and removal"),
        (r"__?synchronize_irq|synchronize_hardirq|disable_irq", "a handler of interrupts to end"),
        (r"io_schedule\w{0,30}|(?:folio|page|wait_on)_\w{0,30}(?:bit|writeback|page)\w{0,30}|bit_wait_io", DISK),
        (r"(?:rwsem_|percpu_)?down_write\w{0,30}", "a read-write semaphore (to write)"),
        (r"(?:rwsem_|percpu_)?down_read\w{0,30}|percpu_rwsem_wait", "a read-write semaphore (to read)"),
        (r"_{0,2}(?:ww_|rt_)?mutex_lock\w{0,30}|__mutex\w{0,30}", "a mutex"),
        (r"_{0,2}down(?:_(?:interruptible|killable|timeout|common))?", "a semaphore"),
        (r"_{0,2}wait_for_(?:common|completion)\w{0,30}", "somebody to say that it is done (a completion)"),
        (r"do_wait|wait_task_\w{0,30}|kernel_wait4", "a child process to end"),
    )
)  # fmt: skip
# Functions that only say that somebody waits, above the one that tells why.
ABOVE = re.compile(
    r"(?:__)?schedule(?:_timeout\w{0,30}|_preempt_disabled|_hrtimeout\w{0,30}|d)?|context_switch|__switch_to"
    r"|do_wait_intr\w{0,30}|bit_wait"
    r"|__wait_on_bit\w{0,30}|out_of_line_wait\w{0,30}|wait_woken|prepare_to_wait\w{0,30}|rwbase_\w{0,30}"
    r"|__rt_mutex_slowlock\w{0,30}|rt_slowlock\w{0,30}"
)
DEEPEST = 14  # frames from the innermost that are looked at

OWNED = re.compile(
    r"INFO: task .{1,40}:\d{1,10}(?: <\w{1,10}>)? (?:is )?blocked on an? (?P<what>[\w -]{1,30}?)"
    r"(?: likely (?:last held|owned) by task (?P<task>.{1,40}):(?P<pid>\d{1,10})(?: <(?P<how>\w{1,10})>)?"
    r"|, but the owner is not found)"
)
HOLDS = re.compile(r"\s{0,8}(?:\d{1,4} locks?|no locks) held by (?P<task>.{1,40})/(?P<pid>\d{1,10})")
# ` #0: ffff88810a9b1218 (&dev->mutex){....}-{3:3}, at: device_lock+0x1/0x2`; before v4.17 without the address.
LOCK = re.compile(
    r"\s{0,8}#\d{1,3}: {1,3}(?:(?P<address>[0-9a-f]{8,16}|\(ptrval\)) )?\((?P<name>.{1,100}?)\)\{[^}]{0,12}\}"
)


class Wait(msgspec.Struct, frozen=True):
    """A task that waits, in words."""

    task: Task
    event: Event
    what: str | None  # that it waits for
    holders: tuple[Task, ...]  # of it, as far as the log tells
    lock: str | None = None  # its name, where the log tells it


def waits_for(functions: Sequence[str]) -> str | None:
    """What a task waits for, by the functions of its trace, innermost first; `None` where they do not tell."""
    names = [base(function) for function in functions[:DEEPEST]]
    found: str | None = None
    for name in names:
        words = next((words for pattern, words in REASONS if pattern.fullmatch(name[:80])), None)
        if words is None and not ABOVE.fullmatch(name[:80]):
            break
        found = words or found  # the outer one says more: rtnl_lock() above is mutex_lock()
    return found


def blocked_on(text: str) -> bool:
    """Whether a line says whom a hung task waits for."""
    return "blocked on a" in text and OWNED.search(text) is not None


def owner(text: str) -> Task | None:
    """The task that is said to hold what a hung task waits for."""
    match = OWNED.search(text)
    if match is None or match["task"] is None:
        return None
    return Task(match["task"], int(match["pid"]))


def holds(texts: Iterable[str]) -> tuple[HeldLock, ...]:
    """The locks that lockdep lists, with the task that holds each."""
    found: list[HeldLock] = []
    task: Task | None = None
    for text in texts:
        if " held by " in text and (match := HOLDS.match(text)):
            task = Task(match["task"], int(match["pid"]))
        elif task is not None and "#" in text[:10] and (match := LOCK.match(text)):
            frame = location(text)
            address = match["address"] if match["address"] != "(ptrval)" else None
            found.append(HeldLock(task, match["name"], address, None if frame is None else frame.function))
            if len(found) >= MOST_LOCKS:
                break
    return tuple(found)


MOST_LOCKS = 2000


def waits(events: Sequence[Event]) -> list[Wait]:
    """The tasks of one log that wait, each once, and who holds what they wait for."""
    held: dict[tuple[Task, str, str | None], HeldLock] = {}
    owners: dict[Task, Task] = {}
    tasks: dict[Task, Event] = {}
    for event in events:
        for lock in event.locks:
            held[lock.task, lock.name, lock.address] = lock
        if event.kind == "hung-task" and event.process is not None and event.pid is not None:
            task = Task(event.process, event.pid)
            tasks[task] = event
            if event.owner is not None:
                owners[task] = event.owner
    by_task: dict[Task, list[HeldLock]] = {}
    for lock in held.values():
        by_task.setdefault(lock.task, []).append(lock)
    found = []
    for task, event in tasks.items():
        # lockdep counts a lock as held from when a task begins to wait for it: the last one is what it waits for.
        mine = by_task.get(_known(task, by_task), [])
        wanted = mine[-1] if mine and event.waits_for in LOCKS else None
        holders = [owners[task]] if task in owners else []
        if wanted is not None and wanted.address is not None:
            holders += [
                other
                for other, locks in by_task.items()
                if other.pid != task.pid and any(one.address == wanted.address for one in _sure(other, locks, tasks))
            ]
        name = None if wanted is None else wanted.name
        found.append(Wait(task, event, event.waits_for, tuple(dict.fromkeys(holders)), name))
    return found


LOCKS = frozenset(words for _, words in REASONS if "mutex" in words or "semaphore" in words or "lock of" in words)


def _known(task: Task, tasks: Iterable[Task]) -> Task:
    """The same task under the name of another list: names of kernel threads are cut in one and not in the other."""
    return next((one for one in tasks if one.pid == task.pid), task)


def _sure(task: Task, locks: Sequence[HeldLock], waiting: Iterable[Task]) -> Sequence[HeldLock]:
    """What a task holds for sure: all but the last, if it waits."""
    return locks[:-1] if any(one.pid == task.pid for one in waiting) else locks


def circles(found: Sequence[Wait]) -> list[tuple[Wait, ...]]:
    """The tasks that wait for each other: each waits for what the next one holds, and the last one for the first."""
    by_pid = {wait.task.pid: wait for wait in found}
    circles: list[tuple[Wait, ...]] = []
    for start in found:
        path = [start]
        while True:
            following = next((by_pid[one.pid] for one in path[-1].holders if one.pid in by_pid), None)
            if following is None or (following in path and following is not start):
                break
            if following is start:
                if len(path) > 1 and not any(start in circle for circle in circles):
                    circles.append(tuple(path))
                break
            path.append(following)
    return circles
