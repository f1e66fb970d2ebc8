# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports whose beginning is not in the log: how what is left is known, and whether it is enough for an event."""

import re
from functools import lru_cache

from ejectable.crash.blame import caller_of_wait
from ejectable.crash.frames import frames_of
from ejectable.crash.oops_pattern import Match, OopsPattern
from ejectable.crash.oops_patterns import SUSPICIOUS
from ejectable.crash.parsed_report import parse
from ejectable.crash.report import REGISTER_LINES, Report

__all__ = ["LOST", "PROC_STACK", "is_benign", "is_enough", "is_left_of_a_report", "is_notable", "was_asked_for"]

LOST = Match(OopsPattern("lost", re.compile(r"(?!)"), "other", "Oops in {f} (its beginning is missing)", trap=True), ())
# `/proc/PID/stack`, which hides addresses (fs/proc/base.c: proc_pid_stack(), "[<0>] %pB").
PROC_STACK = Match(
    OopsPattern("proc-stack", re.compile(r"(?!)"), "hung-task", "task waits in {f}", "hang", bare=True), ()
)
# A trace below one of these is one that somebody asked for, or of a failure that the kernel survives.
BENIGN = re.compile(
    r"page allocation failure|invoked oom-killer|[Ss]ys[Rr]q ?: |Sending NMI from CPU|task:\S.{0,30} state:[^D]"
    r"|warn_alloc|Show (?:Blocked State|backtrace|Regs|State|Memory)|Showing (?:all locks|busy workqueues)"
    r"|^Backtrace for |segfault at |^traps: |fault injection|FAULT_INJECTION|^Mem-Info:|kmemleak: "
)
NOTABLE = re.compile(f"{BENIGN.pattern}|{SUSPICIOUS.pattern}")
ASKED_FOR = re.compile(
    r"warn_alloc\w{0,20}|oom_kill_process|dump_header|out_of_memory|__handle_sysrq|sysrq_\w{1,30}|write_sysrq_trigger"
    r"|should_fail\w{0,20}|fail_dump|show_state_filter"
)
SIGNS = re.compile(
    r"[RE]IP: [0-9O(\[]|Call [Tt]race:|Code: (?:[0-9a-f(<]|Bad |Unable)|PC is at|pc : |epc : |NIP[ :]|Krnl PSW|ERA: "
    r"|Oops\b|Modules linked in: |CPU: \d{1,4} (?:UID: \d{1,10} )?PID: \d|\[<0>\] \w|<TASK>|(?:Backtrace|Stack): ?"
)


@lru_cache(maxsize=4096)
def is_notable(text: str) -> bool:
    """Whether a line outside of any report is benign or speaks of a crash: one look for both, as most are neither."""
    return NOTABLE.search(text) is not None


def is_benign(text: str) -> bool:
    """Whether a line heads a dump that somebody asked for, or of a failure that the kernel survives."""
    return BENIGN.search(text) is not None


@lru_cache(maxsize=4096)
def is_left_of_a_report(text: str) -> bool:
    """Whether a line that stands outside of any report must come from one."""
    if "+0x" in text and frames_of(text):
        return True
    return text[:4] in REGISTER_LINES or SIGNS.match(text.lstrip()) is not None


def is_enough(report: Report) -> bool:
    """Whether what no complaint begins tells of something: where the processor was, or the way there."""
    parsed = parse(report)
    frames = [frame.function for trace in parsed.traces for frame in trace]
    if was_asked_for(report):
        return False
    if not report.lost:
        return caller_of_wait(frames) is not None
    if parsed.ip is not None or parsed.ip_address is not None or parsed.die is not None:
        return True
    return len(frames) >= 2 or len(parsed.registers) >= 4 or (bool(frames) and report.ended)


def was_asked_for(report: Report) -> bool:
    """Whether a trace is one that somebody asked for, or tells of a failure that the kernel survives."""
    return any(ASKED_FOR.fullmatch(frame.function) for trace in parse(report).traces for frame in trace)
