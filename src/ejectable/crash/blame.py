# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function of a stack trace is to blame.

The top of a trace is rarely the culprit: it reports, unwinds, allocates, copies, locks or waits on behalf of the
one that called it wrongly. `ignored_frames` lists what every caller in the kernel may be standing in.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ejectable.crash.frames import base
from ejectable.crash.ignored_frames import (
    ALLOCATES,
    BOTTOM,
    DISPATCH,
    EXTRA,
    HANG_ANCHORS,
    INTERRUPTED,
    SKIP,
    TELLS,
    TRAP,
    WAITING,
)

__all__ = [
    "blame",
    "bottom",
    "caller_of_stall",
    "caller_of_wait",
    "first_left",
    "interrupted",
    "named",
    "skipped",
    "trapped",
]

LONGEST = 80  # characters of a name that are looked at: no function that is not blamed has a longer one

# SYSCALL_DEFINE() makes several functions of one, and their names changed with the years (include/linux/syscalls.h
# and the architectures' asm/syscall_wrapper.h): SyS_read and SYSC_read, then __x64_sys_read, __se_sys_read,
# __do_sys_read; ksys_read is what all of them call. The source says only: read.
WRAPPER = re.compile(
    r"(?:(?:__(?:x64|ia32|x32|arm64|riscv|s390x?|powerpc|loongarch)_)?(?:__se_|__do_)?(?:compat_)?k?sys"
    r"|(?:compat_)?(?:SYSC|SyS))_(?=[a-z])"
)


def named(function: str) -> str:
    """The name in the source: without what compilers append; of a system call, without what macros prepend."""
    plain = base(function)
    if plain[:1] in "_Scsk" and (match := WRAPPER.match(plain)):
        return f"sys_{plain[match.end() :]}"
    return plain


def blame(functions: Iterable[str], pattern: str = "") -> str | None:
    """The first function that is not passed over, or `None`; `pattern` is the name of the pattern."""
    extra = EXTRA.get(pattern)
    # What leaks was asked for by the first that does not itself allocate; it may well be a library function.
    passed = ALLOCATES.match if pattern == "leak" else skipped
    for function in functions:
        plain = base(function)
        if passed(plain[:LONGEST]) or (extra is not None and extra.search(plain[:LONGEST])):
            continue
        if bottom(plain):
            break
        return named(plain)
    return None


def first_left(functions: Iterable[str]) -> str | None:
    """Where all are passed over: the first that does more than report, else the first."""
    names = [base(function) for function in functions]
    for name in names:
        if not TELLS.match(name[:LONGEST]) and not bottom(name):
            return named(name)
    return named(names[0]) if names else None


@lru_cache(maxsize=8192)
def skipped(name: str) -> bool:
    """Whether a function is passed over, whatever the kind of event."""
    return SKIP.match(name[:LONGEST]) is not None


@lru_cache(maxsize=4096)
def bottom(name: str) -> bool:
    """Whether a thread of execution begins with it."""
    return BOTTOM.match(name[:LONGEST]) is not None


@lru_cache(maxsize=4096)
def interrupted(name: str) -> bool:
    """Whether what stands below it in a trace was interrupted by it."""
    return INTERRUPTED.match(name[:LONGEST]) is not None


@lru_cache(maxsize=4096)
def trapped(name: str) -> bool:
    """Whether it is the way into the kernel of what trapped there."""
    return TRAP.match(name[:LONGEST]) is not None


def caller_of_wait(functions: Sequence[str]) -> str | None:
    """For a task that hangs: who waits, or the well-known thing that everybody waits for."""
    names = [base(function) for function in functions]
    for name in names:
        for anchor in HANG_ANCHORS:
            if anchor in name:
                return name if anchor == "rtnl_lock" else "synchronize_rcu"
    for name in names:
        if not WAITING.search(name[:LONGEST]) and not bottom(name) and not skipped(name):
            return named(name)
    return None


def caller_of_stall(functions: Sequence[str], pattern: str = "") -> str | None:
    """For a CPU that does not come back: the last function before the dispatcher, as the top is a random one.

    An RCU stall is told by the timer's interrupt: there the CPU was stuck in what was interrupted.
    """
    extra = EXTRA.get(pattern)
    names = [base(function) for function in functions]
    start = 0
    if pattern == "rcu-stall":
        start = next((at for at, name in enumerate(names) if interrupted(name)), 0)
        while start < len(names) and interrupted(names[start]):
            start += 1
    before: str | None = None
    for name in names[start:] or names[:1]:
        if skipped(name) or (extra is not None and extra.search(name[:LONGEST])):
            continue
        if DISPATCH.match(name[:LONGEST]):
            return "smp_call_function" if "smp_call_function" in name else named(before or name)
        before = name
    return None if before is None else named(before)
