# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks of a log: the frames of their stacks, and the locks that they hold."""

import msgspec

__all__ = ["Frame", "HeldLock", "Task"]


class Frame(msgspec.Struct, frozen=True):
    """One line of a stack trace, innermost first. `offset` and `size` in bytes."""

    function: str
    offset: int | None
    size: int | None
    module: str | None
    reliable: bool  # False for a frame marked `?`


class Task(msgspec.Struct, frozen=True):
    """A task of a log, by its name and number."""

    name: str
    pid: int


class HeldLock(msgspec.Struct, frozen=True):
    """A lock that a task holds, or begins to wait for, as lockdep lists it."""

    task: Task
    name: str  # "&dev->mutex"
    address: str | None  # of the lock; the same lock has the same one
    at: str | None  # the function that took it
