# SPDX-License-Identifier: GPL-2.0-or-later
"""From a report's facts to an event: what to call it, whom to blame, how it is known again."""

import re
from collections.abc import Sequence

from ejectable.crash import taint
from ejectable.crash.blame import blame, caller_of_stall, caller_of_wait, first_left, interrupted, named
from ejectable.crash.cause import trigger_of
from ejectable.crash.context import Context
from ejectable.crash.facts import Facts, facts_of
from ejectable.crash.fingerprint import fingerprint
from ejectable.crash.frames import base
from ejectable.crash.report import Report
from ejectable.model import Event, EventKind, Frame

__all__ = ["event_of"]

FIRST_PAGE = 0x1000
NAME = re.compile(r"[A-Za-z_][\w.$]*")
NO_RETURN = ("panic", "nmi_panic", "__stack_chk_fail", "do_exit", "make_task_dead", "usercopy_abort", "fortify_panic")


def event_of(report: Report, source: str, context: Context) -> Event:
    """The event that a report is."""
    facts = facts_of(report)
    trigger = report.match.trigger
    kind = _kind(report, facts)
    trace = _trace(report, facts)
    if kind == "null-call":
        trace = _with_caller(facts, trace)
    function = _function(report, facts, trace, kind)
    title = _title(report, facts, function, kind)
    frames = tuple(trace)
    needs_trace = not trigger.bare and trigger.role != "panic"
    truncated = (
        report.cut and needs_trace and (trigger.trap or kind == "warning" or not frames or _last_is_frame(report))
    )
    truncated = truncated or report.lost
    corrupted = facts.garbled > 0 or (needs_trace and not truncated and not frames and facts.ip is None)
    ip = None
    if facts.ip is not None:
        ip = f"{facts.ip.function}+{facts.ip.offset or 0:#x}/{facts.ip.size or 0:#x}"
    elif facts.ip_address is not None:
        ip = f"{facts.ip_address:#x}"
    module = next(
        (f.module for f in (*([facts.ip] if facts.ip else []), *frames) if f.module and base(f.function) == function),
        None,
    )
    names = [frame.function for frame in frames if frame.reliable] or [frame.function for frame in frames]
    return Event(
        source=source,
        line=report.number,
        time=report.time,
        kind=kind,
        title=title,
        function=function,
        ip=ip,
        module=module,
        process=facts.process,
        pid=facts.pid,
        cpu=facts.cpu if facts.cpu is not None else _speaker_cpu(report),
        kernel=facts.kernel or context.kernel,
        arch=_arch(facts, context),
        trigger=trigger_of(names, facts.workqueue, facts.process),
        truncated=truncated,
        corrupted=corrupted,
        fingerprint=fingerprint(kind, title, function, names),
        trace=frames,
        last_line=report.last,
        follows=report.follows,
        oops=facts.die,
        address=None if facts.address is None else f"{facts.address:#x}",
        fetch=True if facts.fetch else None,
        taint=taint.words(facts.taint or ""),
        registers=facts.registers,
        code=facts.code,
        modules=tuple(facts.modules),
        workqueue=facts.workqueue,
        hardware=facts.hardware,
        device=context.device(names),
    )


def _kind(report: Report, facts: Facts) -> EventKind:
    kind = report.match.trigger.kind
    if kind in ("null-deref", "paging-fault") or (
        kind == "other" and report.match.trigger.name in ("die", "lost", "oops-counter")
    ):
        call = facts.fetch or (facts.ip_address is not None and (facts.address in (None, facts.ip_address)))
        if facts.ip_address == 0 and facts.ip is None and call:
            return "null-call"
        if kind == "paging-fault" and facts.address is not None and facts.address < FIRST_PAGE:
            return "null-deref"
    return kind


def _trace(report: Report, facts: Facts) -> list[Frame]:
    """The trace of the one that is to blame, innermost first."""
    traces = facts.traces
    if not traces:
        return []
    trigger = report.match.trigger
    if trigger.way == "stall":
        # Of several CPUs, the one that is stuck. RCU's stall is told by the timer's interrupt, so that the trace goes
        # through it; else it is the first one that is not idle.
        busy = [trace for trace in traces if not _idle(trace)]
        told = [t for t in busy if trigger.name == "rcu-stall" and any(interrupted(base(f.function)) for f in t)]
        return (told or busy or traces)[0]
    if (trigger.trap or trigger.kind == "warning" or trigger.name == "unlock") and facts.announced is not None:
        return traces[facts.announced]  # what stands before its head is no trace, or somebody else's, interleaved
    return traces[0]


def _with_caller(facts: Facts, trace: list[Frame]) -> list[Frame]:
    """The trace of a jump to nowhere, its caller on top.

    Where a call leaves its return address in a register, no frame of the stack shows who called: the callee would
    have saved it, and here there is none. arm64's unwinder leaves that register out (32ed1205682e, "arm64:
    stacktrace: Skip reporting LR at exception boundaries").
    """
    link = facts.link
    if link is None or (trace and trace[0].function == link.function):
        return trace
    return [link, *trace]


def _idle(trace: Sequence[Frame]) -> bool:
    names = {frame.function for frame in trace}
    return bool(
        names
        & {
            "default_idle",
            "default_idle_call",
            "native_safe_halt",
            "acpi_idle_do_entry",
            "acpi_safe_halt",
            "arch_cpu_idle",
            "cpuidle_enter",
            "cpuidle_enter_state",
            "pv_native_safe_halt",
            "mwait_idle",
            "do_idle",
        }
    )


def _entered(trace: Sequence[Frame]) -> list[Frame]:
    """Without frames of functions that were never entered.

    A call that does not return may be the last instruction of its function: its return address is then the first of
    the next one, and is printed as that one's, with the offset 0 (where "%pS" prints it; "%pB" looks one byte back).
    """
    astray = {number + 1 for number, frame in enumerate(trace[:-1]) if base(frame.function) in NO_RETURN}
    return [frame for number, frame in enumerate(trace) if number not in astray or frame.offset != 0]


def _function(report: Report, facts: Facts, trace: Sequence[Frame], kind: EventKind) -> str | None:
    trigger = report.match.trigger
    trace = _entered(trace)
    reliable = [frame.function for frame in trace if frame.reliable]
    doubtful = [frame.function for frame in trace]
    way = trigger.way
    if way == "none":
        return None
    if way == "race":
        groups = report.match.groups
        return _named(groups[1]) if len(groups) > 1 else None
    if way == "last":
        # Where the workers of the pool that is stuck are shown, the first says what it works on; what else is in
        # flight may belong to other pools.
        work = (facts.workqueue or "").split()
        return _named(work[1]) if len(work) > 1 else facts.last_function
    if way == "hang":
        return caller_of_wait(reliable) or caller_of_wait(doubtful)
    if way == "stall":
        ip = [facts.ip.function] if facts.ip else []
        return (
            caller_of_stall([*ip, *reliable], trigger.name)
            or blame([*ip, *reliable], trigger.name)
            or blame([*ip, *doubtful], trigger.name)
        )
    if way == "leak":
        return blame(reliable, "leak") or blame(doubtful, "leak")
    if way == "at" and (found := _at(facts, trigger.name)):
        return found
    if trigger.name == "page-state" and (found := blame([f.function for f in facts.allocated], trigger.name)):
        return found  # who had the page knows what it did with it; who found out does not
    if kind == "undefined-instruction" and facts.ip is not None:
        return named(facts.ip.function)  # the instruction is its own, whoever called
    first: list[str] = []
    if way == "named":
        name = next((group for group in reversed(report.match.groups) if group), None)
        first = [plain] if name and (plain := _named(name)) else []
    if facts.ip is not None and kind not in ("kasan", "kmsan"):
        first.append(facts.ip.function)
    return (
        blame([*first, *reliable], trigger.name)
        or blame([*first, *doubtful], trigger.name)
        or (first_left([*first, *reliable]) if first else None)
    )


def _at(facts: Facts, wording: str) -> str | None:
    """Whom lockdep's own words blame: who took the first lock so that it may be taken in an interrupt, or wants one."""
    if found := blame([frame.function for frame in facts.became], wording):
        return found
    if found := blame([frame.function for frame in facts.released], wording):
        return found
    places = [frame.function for frame in facts.at]
    return blame(places[:1], wording) or blame(places, wording)


def _named(text: str | None) -> str | None:
    match = NAME.match(text or "")
    return base(match.group(0)) if match else None


def _title(report: Report, facts: Facts, function: str | None, kind: EventKind) -> str:
    trigger = report.match.trigger
    groups = [group or "" for group in report.match.groups]
    title = trigger.title
    if kind in ("null-call", "null-deref"):
        title = "BUG: unable to handle kernel NULL pointer dereference in {f}"
    race = " / ".join(name for name in (_named(group) for group in groups[1:3]) if name)
    text = title.format(*groups, *[""] * 3, f=function or "", access=facts.access or "", race=race)
    text = re.sub(r" (?:in|/)\s*$", "", text.replace("  ", " ")).strip()
    return text[:200]


def _arch(facts: Facts, context: Context) -> str | None:
    return facts.arch or context.arch


def _speaker_cpu(report: Report) -> int | None:
    return int(report.speaker[1:]) if report.speaker.startswith("C") and len(report.speaker) < 6 else None


# The frame that a trace ends with: there the thread began.
OUTERMOST = re.compile(
    r"\b(?:ret_from_\w+|ret_fast_syscall|entry_(?:SYSCALL|SYSENTER|INT80)\w*|system_call\w*|sysenter\w*|"
    r"kernel_thread_helper|el0\w*sync\w*|secondary_startup\w*)\+0x"
)


def _last_is_frame(report: Report) -> bool:
    last = next((text for text in reversed(report.texts) if text), "")
    return "+0x" in last and not OUTERMOST.search(last)
