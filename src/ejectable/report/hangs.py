# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a log that hang, in words: what each waits for, who holds that, and what to look at."""

from collections.abc import Sequence

import msgspec

from ejectable.crash.hangs import Wait, circles, waits
from ejectable.model import Event, Task

__all__ = ["REMOVALS", "Hangs", "WaitingTask", "hangs", "is_stuck_detach", "lines", "steps", "stuck"]

REMOVALS = frozenset(("acpi-eject", "pcie-hotplug", "sysfs-remove", "driver-unbind", "module-unload"))
KINDS = frozenset(("hung-task", "soft-lockup", "rcu-stall"))
MOST = 20  # tasks that are listed in text
BACK_END = (
    "Is the device's back end still answering (storage, fabric, the host's process for it)? Requests that nobody "
    "completes hold the removal for ever."
)
USERS = (
    "Who still uses it? Mounts (findmnt), swap (swapon), device mapper and RAID (dmsetup ls, /proc/mdstat), processes "
    "(fuser -vm)."
)
HOLDER = (
    "Something else holds the lock that the removal needs: find it among the tasks that wait, and see why it does not "
    "go on."
)
ALL = "See all that waits: echo w > /proc/sysrq-trigger, then give the new log to ejectable crash."
DEADLOCK = (
    "They never go on: restart the machine (echo b > /proc/sysrq-trigger where a clean restart hangs), and report both "
    "traces to who makes the kernel."
)


class WaitingTask(msgspec.Struct, frozen=True):
    """A task that hangs, what it waits for, and who holds that; the last two as far as the log tells."""

    source: str
    line: int
    process: str
    pid: int
    function: str | None
    waits_for: str | None
    lock: str | None
    holders: tuple[Task, ...]


class Hangs(msgspec.Struct, frozen=True):
    """All tasks that hang, and the circles among them."""

    tasks: tuple[WaitingTask, ...] = ()
    deadlocks: tuple[tuple[Task, ...], ...] = ()


def hangs(events: Sequence[Event]) -> Hangs:
    """The tasks that hang in all logs; those of different logs do not wait for each other."""
    by_log: dict[tuple[str, str | None], list[Event]] = {}
    for event in events:
        by_log.setdefault((event.source, event.host), []).append(event)
    found = [waits(own) for own in by_log.values()]
    return Hangs(
        tuple(_task(wait) for own in found for wait in own),
        tuple(tuple(wait.task for wait in circle) for own in found for circle in circles(own)),
    )


def _task(wait: Wait) -> WaitingTask:
    event = wait.event
    return WaitingTask(
        event.source, event.line, wait.task.name, wait.task.pid, event.function, wait.what, wait.lock, wait.holders
    )


def is_stuck_detach(event: Event) -> bool:
    """Whether the event is that of a task which takes a device away, and waits."""
    return event.kind in KINDS and event.trigger in REMOVALS


def stuck(event: Event) -> str:
    """A stuck detach as a phrase."""
    who = f"{event.process} (pid {event.pid})" if event.process else "a task"
    what = f" for {event.waits_for}" if event.waits_for else ""
    return f"a detach is stuck: {who} waits{what} in {event.function or 'the kernel'}"


def steps(event: Event, found: Hangs) -> list[str]:
    """What to look at where a detach is stuck: by what it waits for first."""
    what = event.waits_for or ""
    if any(task.pid == event.pid for circle in found.deadlocks for task in circle):
        return [DEADLOCK]
    if "lock" in what or "mutex" in what or "semaphore" in what:
        return [HOLDER, USERS, BACK_END, ALL]
    if "answer" in what or "request" in what or "read or write" in what or "journal" in what:
        return [BACK_END, USERS, ALL]
    return [BACK_END, USERS, ALL]


def lines(found: Hangs) -> list[str]:
    """One line for each task, and one for each circle."""
    told = [f"Deadlock: {_names(circle)} wait for each other." for circle in found.deadlocks]
    for one in found.tasks[:MOST]:
        what = f" waits for {one.waits_for}" if one.waits_for else " waits"
        lock = f" ({one.lock})" if one.lock else ""
        held = f", held by {_names(one.holders)}" if one.holders else ""
        where = f" in {one.function}" if one.function else ""
        told.append(f"{one.process} (pid {one.pid}){what}{lock}{where}{held}")
    if len(found.tasks) > MOST:
        told.append(f"... and {len(found.tasks) - MOST} more")
    return told


def _names(tasks: Sequence[Task]) -> str:
    names = [f"{task.name} (pid {task.pid})" for task in tasks]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
