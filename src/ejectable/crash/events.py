# SPDX-License-Identifier: GPL-2.0-or-later
"""From a parsed report to an event: what to call it, whom to blame, how it is known again."""

import re
from collections.abc import Sequence

import msgspec

from ejectable.crash import taint
from ejectable.crash.blame import blame, caller_of_stall, caller_of_wait, first_left, interrupted, named
from ejectable.crash.cause import trigger_of
from ejectable.crash.context import Context
from ejectable.crash.fingerprint import fingerprint
from ejectable.crash.frames import base, location
from ejectable.crash.hangs import holds, owner, waits_for
from ejectable.crash.parsed_report import ParsedReport, parse
from ejectable.crash.report import Report
from ejectable.model import Doubt, DoubtKind, Event, EventKind, Frame

__all__ = ["event_of", "first_is_missing"]

FIRST_PAGE = 0x1000
ADDRESS = re.compile(r"(?:0x)?[0-9a-f]{8,16}")
NAME = re.compile(r"[A-Za-z_][\w.$]*")
NO_RETURN = ("panic", "nmi_panic", "__stack_chk_fail", "do_exit", "make_task_dead", "usercopy_abort", "fortify_panic")


def event_of(report: Report, source: str, context: Context) -> Event:
    """The event that a report is."""
    parsed = parse(report)
    pattern = report.match.pattern
    kind = _kind(report, parsed)
    trace = _trace(report, parsed)
    if kind == "null-call":
        trace = _with_caller(parsed, trace)
    function = _function(report, parsed, trace, kind)
    title = _title(report, parsed, function, kind)
    frames = tuple(trace)
    needs_trace = not pattern.bare and pattern.role != "panic"
    truncated = (
        report.cut and needs_trace and (pattern.trap or kind == "warning" or not frames or _last_is_frame(report))
    )
    truncated = truncated or report.lost
    if not report.match.pattern.trap:  # other reports have tables and several tasks
        parsed = msgspec.structs.replace(parsed, unreadable=[], mixed=False)
    corrupted = (
        parsed.garbled > 0
        or bool(parsed.unreadable)
        or parsed.mixed
        or (needs_trace and not truncated and not frames and parsed.ip is None)
    )
    ip = None
    if parsed.ip is not None:
        ip = f"{parsed.ip.function}+{parsed.ip.offset or 0:#x}/{parsed.ip.size or 0:#x}"
    elif parsed.ip_address is not None:
        ip = f"{parsed.ip_address:#x}"
    module = next(
        (f.module for f in (*([parsed.ip] if parsed.ip else []), *frames) if f.module and base(f.function) == function),
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
        process=parsed.process,
        pid=parsed.pid,
        cpu=parsed.cpu if parsed.cpu is not None else _caller_cpu(report),
        kernel=parsed.kernel or context.kernel,
        arch=_arch(parsed, context),
        trigger=trigger_of(names, parsed.workqueue, parsed.process),
        truncated=truncated,
        corrupted=corrupted,
        fingerprint=fingerprint(kind, title, function, names),
        trace=frames,
        last_line=report.last,
        follows=report.follows,
        oops=parsed.die,
        address=None if parsed.address is None else f"{parsed.address:#x}",
        fetch=True if parsed.fetch else None,
        taint=taint.words(parsed.taint or ""),
        registers=parsed.registers,
        code=parsed.code,
        modules=tuple(parsed.modules),
        workqueue=parsed.workqueue,
        hardware=parsed.hardware,
        device=context.device(names),
        beginning_lost=report.lost,
        host=report.host or None,
        waits_for=waits_for(names) if kind == "hung-task" else None,
        owner=next((one for text in report.texts if (one := owner(text))), None) if kind == "hung-task" else None,
        locks=holds(report.texts) if kind in ("hung-task", "lockdep") else (),
        ends_log=report.final or report.cut,
        trace_headed=parsed.announced is not None or not frames,
        doubts=_doubts(report, parsed, source, truncated=truncated),
    )


def first_is_missing(event: Event) -> Doubt:
    """The doubt about a kernel that had died before, of which the log does not tell."""
    where = f"{event.source}:{event.line}"
    return Doubt(DoubtKind.MISSING, where, f"It is Oops number {event.oops}, and the first one is not in the log.")


def _doubts(report: Report, parsed: ParsedReport, source: str, *, truncated: bool) -> tuple[Doubt, ...]:
    """What of a report is missing, cannot be read, or may be another's."""
    first, last = f"{source}:{report.number}", f"{source}:{report.last}"
    found = []
    if report.lost:
        found.append(Doubt(DoubtKind.CUT_OFF, first, "The beginning of the report is missing."))
    elif truncated:
        found.append(Doubt(DoubtKind.CUT_OFF, last, "The log ends within the report."))
    for text in parsed.unreadable:
        detail = f"“{text[:100]}” stands among the frames of the trace and cannot be read as one."
        found.append(Doubt(DoubtKind.UNPARSED, first, detail))
    if parsed.garbled and not parsed.unreadable:
        found.append(Doubt(DoubtKind.UNPARSED, first, "Characters of the report are lost or wrong."))
    if parsed.mixed:
        detail = "Lines of two tasks are mixed in the report, and nothing tells them apart."
        found.append(Doubt(DoubtKind.AMBIGUOUS, first, detail))
    if report.orphaned:
        found.append(Doubt(DoubtKind.MISSING, first, "What led to this panic is not in the log."))
    return tuple(found)


def _kind(report: Report, parsed: ParsedReport) -> EventKind:
    kind = report.match.pattern.kind
    # Of these the line that tells them apart is lost, or not read.
    unclear = report.match.pattern.name in ("die", "lost", "oops-counter", "any-bug") and kind in ("other", "bug")
    if kind in ("null-deref", "paging-fault") or unclear:
        call = parsed.fetch or (parsed.ip_address is not None and (parsed.address in (None, parsed.ip_address)))
        if parsed.ip_address == 0 and parsed.ip is None and call:
            return "null-call"
        if parsed.ip_address is None and parsed.ip is None and parsed.fetch and parsed.address == 0:
            return "null-call"  # the line with the instruction pointer is lost; it was where it fetched from
        if kind == "paging-fault" and parsed.address is not None and parsed.address < FIRST_PAGE:
            return "null-deref"
    return kind


def _trace(report: Report, parsed: ParsedReport) -> list[Frame]:
    """The trace of the one that is to blame, innermost first."""
    traces = parsed.traces
    if not traces:
        return []
    pattern = report.match.pattern
    if pattern.way == "stall":
        # Of several CPUs, the one that is stuck. RCU's stall is told by the timer's interrupt, so that the trace goes
        # through it; else it is the first one that is not idle.
        busy = [trace for trace in traces if not _idle(trace)]
        told = [t for t in busy if pattern.name == "rcu-stall" and any(interrupted(base(f.function)) for f in t)]
        return (told or busy or traces)[0]
    if (pattern.trap or pattern.kind == "warning" or pattern.name == "unlock") and parsed.announced is not None:
        return traces[parsed.announced]  # what stands before its head is no trace, or somebody else's, interleaved
    return traces[0]


def _with_caller(parsed: ParsedReport, trace: list[Frame]) -> list[Frame]:
    """The trace of a jump to nowhere, its caller on top.

    Where a call leaves its return address in a register, no frame of the stack shows who called: the callee would
    have saved it, and here there is none. arm64's unwinder leaves that register out (32ed1205682e, "arm64:
    stacktrace: Skip reporting LR at exception boundaries").
    """
    link = parsed.link
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


def _function(report: Report, parsed: ParsedReport, trace: Sequence[Frame], kind: EventKind) -> str | None:
    pattern = report.match.pattern
    trace = _entered(trace)
    reliable = [frame.function for frame in trace if frame.reliable]
    doubtful = [frame.function for frame in trace]
    way = pattern.way
    if way == "none":
        return None
    if way == "race":
        groups = report.match.groups
        return _named(groups[1]) if len(groups) > 1 else None
    if way == "last":
        # Where the workers of the pool that is stuck are shown, the first says what it works on; what else is in
        # flight may belong to other pools.
        work = (parsed.workqueue or "").split()
        return _named(work[1]) if len(work) > 1 else parsed.last_function
    if way == "hang":
        return caller_of_wait(reliable) or caller_of_wait(doubtful)
    if way == "stall":
        ip = [parsed.ip.function] if parsed.ip else []
        return (
            caller_of_stall([*ip, *reliable], pattern.name)
            or blame([*ip, *reliable], pattern.name)
            or blame([*ip, *doubtful], pattern.name)
        )
    if way == "leak":
        return blame(reliable, "leak") or blame(doubtful, "leak")
    if way == "at" and (found := _at(parsed, pattern.name)):
        return found
    if pattern.name == "page-state" and (found := blame([f.function for f in parsed.allocated], pattern.name)):
        return found  # who had the page knows what it did with it; who found out does not
    if kind == "undefined-instruction" and parsed.ip is not None:
        return named(parsed.ip.function)  # the instruction is its own, whoever called
    first: list[str] = []
    if way == "named":
        name = next((group for group in reversed(report.match.groups) if group), None)
        if name is not None and ADDRESS.fullmatch(name):
            name = _at_address(report, name)
        first = [plain] if name and (plain := _named(name)) else []
    if parsed.ip is not None and kind not in ("kasan", "kmsan"):
        first.append(parsed.ip.function)
    return (
        blame([*first, *reliable], pattern.name)
        or blame([*first, *doubtful], pattern.name)
        or (first_left([*first, *reliable]) if first else None)
        # A jump to nowhere whose trace is only the way into the kernel: the register that calls leave tells.
        or (named(parsed.link.function) if parsed.link and parsed.ip is None and pattern.trap else None)
    )


def _at(parsed: ParsedReport, pattern: str) -> str | None:
    """Whom lockdep's own words blame: who took the first lock so that it may be taken in an interrupt, or wants one."""
    if found := blame([frame.function for frame in parsed.became], pattern):
        return found
    if found := blame([frame.function for frame in parsed.released], pattern):
        return found
    places = [frame.function for frame in parsed.at]
    held = [frame.function for frame in parsed.held]
    found = blame(places[:1], pattern) or blame(places, pattern)
    if found is None and parsed.announced is not None:  # only the trace tells who took it
        found = blame([frame.function for frame in parsed.traces[parsed.announced] if frame.reliable], pattern)
    return found or blame(held[:1], pattern) or blame(held, pattern)


def _at_address(report: Report, address: str) -> str | None:
    """The function of the frame that is printed with an address."""
    line = next((text for text in report.texts[1:] if f"<{address}>" in text), "")
    frame = location(line)
    return None if frame is None else frame.function


def _named(text: str | None) -> str | None:
    match = NAME.match(text or "")
    return base(match.group(0)) if match else None


def _title(report: Report, parsed: ParsedReport, function: str | None, kind: EventKind) -> str:
    pattern = report.match.pattern
    groups = [group or "" for group in report.match.groups]
    title = pattern.title
    if kind in ("null-call", "null-deref"):
        title = "BUG: unable to handle kernel NULL pointer dereference in {f}"
    race = " / ".join(name for name in (_named(group) for group in groups[1:3]) if name)
    text = title.format(*groups, *[""] * 3, f=function or "", access=parsed.access or "", race=race)
    text = re.sub(r" (?:in|/)\s*$", "", text.replace("  ", " ")).strip()
    return text[:200]


def _arch(parsed: ParsedReport, context: Context) -> str | None:
    return parsed.arch or context.arch


def _caller_cpu(report: Report) -> int | None:
    return int(report.caller[1:]) if report.caller.startswith("C") and len(report.caller) < 6 else None


# The frame that a trace ends with: there the thread began.
OUTERMOST = re.compile(
    r"\b(?:ret_from_\w+|ret_fast_syscall|entry_(?:SYSCALL|SYSENTER|INT80)\w*|system_call\w*|sysenter\w*|"
    r"kernel_thread_helper|el0\w*sync\w*|secondary_startup\w*)\+0x"
)


def _last_is_frame(report: Report) -> bool:
    last = next((text for text in reversed(report.texts) if text), "")
    return "+0x" in last and not OUTERMOST.search(last)
