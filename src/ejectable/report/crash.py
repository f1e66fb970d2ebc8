# SPDX-License-Identifier: GPL-2.0-or-later
"""What `ejectable crash` shows: the answer first, then the event in a person's words, then what to do."""

import re
from collections.abc import Sized
from typing import Annotated

import msgspec
from msgspec import Meta

from ejectable.assess.crashes import Build, Reading
from ejectable.crash.blame import named
from ejectable.crash.cause import tells_trigger
from ejectable.model import Doubt, Event, Finding, Frame, Judgement, Status
from ejectable.report.document import Document, InputError, join, tag
from ejectable.report.hangs import REMOVALS, Hangs, hangs, is_stuck_detach, steps, stuck
from ejectable.report.hangs import lines as hang_lines
from ejectable.report.text import MARKS, bullets, clean, columns, paint, wrap

__all__ = ["CrashDocument", "as_document", "as_text", "confidence_word", "event_document", "next_steps", "summary"]

SHOWN_EVENTS = 6
SHOWN_FRAMES = 7
SHOWN_HOSTS = 20
NAMED = 100  # of the files that are no logs
CERTAIN, LIKELY = 0.9, 0.7
TRIGGERS = {
    "acpi-eject": "while the platform ejected the device (ACPI)",
    "pcie-hotplug": "while the device was unplugged (hotplug controller)",
    "sysfs-remove": "while the device was removed through sysfs",
    "driver-unbind": "while a driver was unbound in sysfs",
    "module-unload": "while a module was unloaded",
    "suspend": "on the way to suspend or hibernation",
    "shutdown": "while the machine was shut down",
}
KINDS = {
    "null-call": "the kernel called address 0",
    "null-deref": "the kernel used a pointer that was NULL",
    "paging-fault": "the kernel used an address where nothing is",
    "gpf": "the kernel used an impossible address",
    "bug": "a check in the kernel failed (BUG)",
    "panic": "the kernel gave up",
    "warning": "a check in the kernel failed (WARNING); it went on",
    "soft-lockup": "a CPU did not get out of the kernel",
    "hard-lockup": "a CPU did not even take interrupts",
    "hung-task": "a task waited for too long",
    "rcu-stall": "a CPU or task held up RCU",
    "kasan": "the kernel used memory that it must not use (found by a sanitizer)",
    "kmsan": "the kernel used memory that nobody had written",
    "kcsan": "two CPUs used the same data at once",
    "ubsan": "undefined behaviour in the code",
    "lockdep": "locks were taken in a way that can deadlock",
    "double-fault": "an exception within an exception",
    "divide-error": "a division by zero",
    "undefined-instruction": "an instruction that does not exist",
    "stack-overflow": "the kernel's stack was too small",
    "other": "the kernel complained",
}
WHAT_FOLLOWS = {
    "panic": "The kernel panicked: the machine stopped, dumped or restarted.",
    "removal": "The kernel went on without the thread that crashed; the locks it held are never released. Further "
    "hotplug, and whatever waits for those locks, hangs. Do not keep it in production.",
    "oops": "The kernel went on without the thread that crashed; what it held is never given back, and what it was "
    "changing is half done. Restart the machine when you can.",
    "memory": "The kernel went on, but memory was used that it must not use: data may be damaged already.",
    "wait": "The kernel goes on. What waits, waits still, if it did not say later that it went on.",
    "report": "The kernel went on.",
    "end": "The log ends here: whether the kernel panicked or went on is not told. If it went on, the locks that the "
    "thread held are never released: do not keep it in production.",
}
TRAPS = frozenset(
    ("null-call", "null-deref", "paging-fault", "gpf", "bug", "double-fault", "divide-error", "undefined-instruction")
)
TRIGGER_NOTE = {
    "acpi-eject": "the platform asked to eject it",
    "pcie-hotplug": "the hotplug controller asked for it",
    "sysfs-remove": "somebody removed it in sysfs",
    "driver-unbind": "somebody unbound the driver",
    "module-unload": "a module is being unloaded",
    "suspend": "on the way to suspend",
    "shutdown": "on the way down",
}


def summary(reading: Reading) -> str:
    """The answer in one line."""
    count = len(reading.events)
    matched = [pair for pair in reading.pairs if pair[1].advisory]
    if len(reading.sources) > 1 and count:
        return f"{_many(reading)}.{_others(reading)}"
    if matched:
        event, said = max(matched, key=lambda pair: pair[1].confidence)
        return f"This is {said.advisory} ({confidence_word(said.confidence)}): {_story(event)}."
    if not count and reading.errors:
        return "Nothing could be said: what was given could not be read."
    if reading.suspicious and not count and reading.others:
        return clean(
            f"No crash in {_counted(reading.sources, 'log')}, but {reading.suspicious[0].detail}{_others(reading)}"
        )
    if reading.suspicious and not count:
        return clean(f"It cannot be told: {reading.suspicious[0].detail}")
    if reading.status is Status.UNKNOWN:
        whys = (said.why for said in reading.judgements if said.status is Status.UNKNOWN)
        why = next(whys, None) or reading.suspicious[0].detail.rstrip(".")
        return clean(f"It cannot be told whether this is a known unplug defect: {why}.")
    if not count:
        logs = "the log" if len(reading.sources) == 1 and not reading.others else _counted(reading.sources, "log")
        return f"No crash in {logs}." + _others(reading)
    if (deadlocks := hangs(reading.events).deadlocks) and len(reading.sources) == 1:
        names = " and ".join(f"{task.name} (pid {task.pid})" for task in deadlocks[0])
        return clean(f"Not a known unplug defect, but a deadlock: {names} wait for each other.")
    if detach := next(filter(is_stuck_detach, reading.events), None):
        trigger = TRIGGERS.get(detach.trigger or "", "")
        return clean(f"Not a known unplug defect, but {stuck(detach)} {trigger}".rstrip() + ".")
    named = next((said.known_as for said in reading.judgements if said.known_as), None)
    first = next((event for event in reading.events if event.kind != "warning"), reading.events[0])
    events = "one event" if count == 1 else f"{count} events"
    told = f"it is {named}" if named else clean(first.title)
    return f"Not a known unplug defect; {events}: {told}."


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}" + ("" if len(things) == 1 else "s")


def _others(reading: Reading) -> str:
    """One sentence on the files that are no logs."""
    if not reading.others:
        return ""
    names = ", ".join(clean(one.source.rpartition("/")[2]) for one in reading.others[:3])
    more = ", ..." if len(reading.others) > 3 else ""
    return f" {_counted(reading.others, 'file')} {'is' if len(reading.others) == 1 else 'are'} no log ({names}{more})."


def _many(reading: Reading) -> str:
    """The sum over several logs: how many, with which advisory, on how many hosts."""
    by_advisory = table(reading)
    told = [
        f"{_counted(logs, 'log')} of {_counted(hosts, 'host')} with {advisory}"
        for (advisory, status), (logs, hosts) in by_advisory.items()
        if status is not Status.NOT_AFFECTED
    ]
    crashed = {event.source for event in reading.events}
    rest = f"{_counted(crashed, 'log')} with a crash or warning"
    return f"{_counted(reading.sources, 'log')}: {'; '.join([*told, rest])}"


def table(reading: Reading) -> dict[tuple[str, Status], tuple[set[str], set[str]]]:
    """The logs and the hosts in which there is an event of each advisory; the worst first."""
    found: dict[tuple[str, Status], tuple[set[str], set[str]]] = {}
    order = sorted(reading.pairs, key=lambda pair: list(Status).index(pair[1].status))
    for event, said in order:
        name = said.advisory or ("something undecided" if said.status is Status.UNKNOWN else said.known_as or "others")
        logs, hosts = found.setdefault((name, said.status), (set(), set()))
        logs.add(event.source)
        hosts.add(event.host or event.source)
    return found


def next_steps(reading: Reading) -> list[str]:
    """What to do now."""
    if reading.status is Status.AFFECTED:
        fixes = dict.fromkeys(said.known_fix for said in reading.judgements if said.advisory and said.known_fix)
        return [
            "Take no other such device away from this machine; restart it, for it is not to be trusted now.",
            *(fix for fix in fixes if fix),
            f"Ask whether the kernel has the defect: ejectable kernel {_image(reading)}",
            "See what can be done, from a live repair to an upgrade: ejectable fix",
        ]
    if not reading.events and reading.errors:
        return ["Give it a kernel log: dmesg, journalctl -k, a serial console, /sys/fs/pstore, vmcore-dmesg.txt."]
    dump = next((one.hint for one in reading.others if one.holds_one and one.hint), None)
    if reading.status is Status.UNKNOWN and dump:
        return [dump]
    if reading.status is Status.UNKNOWN:
        return [
            "Look for the whole report: journalctl -k -b -1, /sys/fs/pstore, /var/crash, the serial console.",
            f"Ask whether the kernel has the defect at all: ejectable kernel {_image(reading)}",
        ]
    if any(event.kind == "other" and "hardware" in event.title.lower() for event in reading.events):
        return ["Have the hardware checked: this is its report, not a defect of the software."]
    if (detach := next(filter(is_stuck_detach, reading.events), None)) is not None:
        return steps(detach, hangs(reading.events))
    fixes = dict.fromkeys(said.known_fix for said in reading.judgements if said.known_fix)
    if fixes:
        return [fix for fix in fixes if fix]
    if reading.events:
        function = next((event.function for event in reading.events if event.function), None)
        return [f"Search the kernel's bug reports for “{function}” and the title above."] if function else []
    return []


def _image(reading: Reading) -> str:
    """Where the kernel that crashed usually lies; what the log says of it goes into a command only if it is tame."""
    matched = [event for event, said in reading.pairs if said.advisory]
    releases = {event.kernel for event in matched or reading.events}
    release = releases.pop() if len(releases) == 1 else None
    tame = release is not None and re.fullmatch(r"\d[\w.+~-]{0,80}", release)
    return f"/boot/vmlinuz-{release}" if tame else "/boot/vmlinuz-$(uname -r)"


class JudgedEvent(Event, frozen=True, kw_only=True):
    """One thing that went wrong, and what is said of it."""

    status: Annotated[Status, Meta(description="affected: it is the crash of `advisory`; unknown: it may be one.")]
    advisory: str | None
    confidence: Annotated[float, Meta(ge=0, le=1)]
    why: str
    known_as: Annotated[str | None, Meta(description="Another known defect that it is.")]
    known_fix: Annotated[str | None, Meta(description="What repairs the defect that it is.")]


class ComparedKernel(msgspec.Struct, frozen=True):
    """With --kernel: the kernel held against the trace."""

    path: str
    release: str | None
    sizes_agree: int
    sizes_differ: int
    same_build: bool | None
    findings: tuple[Finding, ...]


class UnreadSource(msgspec.Struct, frozen=True):
    """A log that could not be read."""

    source: str
    message: str
    hint: str | None


class CrashDocument(Document, frozen=True, kw_only=True, tag=tag("crash")):
    """`ejectable crash`: is this crash the defect, and what was it?"""

    events: tuple[JudgedEvent, ...] = ()
    sources: tuple[str, ...] = ()
    left_out: Annotated[int, Meta(ge=0, description="Repetitions of events that are listed.")] = 0
    unreadable: tuple[UnreadSource, ...] = ()
    not_logs: Annotated[tuple[str, ...], Meta(description="Files that are no kernel logs; the first hundred.")] = ()
    not_logs_count: Annotated[int, Meta(ge=0)] = 0
    kernels: tuple[ComparedKernel, ...] = ()
    hangs: Annotated[Hangs, Meta(description="The tasks that wait, and those that wait for each other.")] = Hangs()
    doubts: Annotated[tuple[Doubt, ...], Meta(description="What speaks of a crash that could not be read.")] = ()


def as_document(reading: Reading) -> CrashDocument:
    """The document of `ejectable crash`."""
    return CrashDocument(
        status=reading.status,
        summary=summary(reading),
        next_steps=tuple(next_steps(reading)),
        errors=tuple(InputError(one.source, one.message, one.hint, one.exit_code) for one in reading.errors),
        events=tuple(event_document(event, said) for event, said in reading.pairs),
        sources=reading.sources,
        left_out=reading.left_out,
        unreadable=tuple(join(UnreadSource, error) for error in reading.errors),
        not_logs=tuple(one.source for one in reading.others[:NAMED]),
        not_logs_count=len(reading.others),
        kernels=tuple(
            ComparedKernel(build.path, build.release, build.agree, build.differ, build.same, build.findings)
            for build in reading.builds
        ),
        doubts=reading.suspicious,
        hangs=hangs(reading.events),
    )


def event_document(event: Event, said: Judgement) -> JudgedEvent:
    """One event with what is said of it."""
    return join(JudgedEvent, event, said, doubts=tuple(dict.fromkeys((*event.doubts, *said.doubts))))


def as_text(reading: Reading, *, colour: bool, width: int, everything: bool = False, quiet: bool = False) -> list[str]:
    """One screen; with `everything`, all events in full."""
    mark = {Status.AFFECTED: "AFFECTED", Status.UNKNOWN: "UNKNOWN"}.get(reading.status, "NOT THIS DEFECT")
    if not reading.events:
        mark = "HEALTHY" if reading.status is Status.NOT_AFFECTED else MARKS[reading.status]
    lines = wrap(f"{mark}: {summary(reading)}", width=width)
    lines[0] = lines[0].replace(mark, paint(mark, str(reading.status), colour=colour), 1)
    if quiet:
        return lines
    order = sorted(
        reading.pairs,
        key=lambda pair: (pair[1].advisory is None, pair[1].status is not Status.UNKNOWN),
    )
    many = len(reading.sources) > 1
    shown = order if everything else order[: 0 if many else 1]
    detailed = [event for event, _ in shown]
    for event, said in shown:
        lines += ["", *_event(event, said, reading, colour=colour, width=width, everything=everything)]
    others = [event for event in reading.events if event not in detailed]
    if many and reading.events:
        lines += ["", *columns([("Logs", "Hosts", "What"), *_rows(reading)])]
        lines += ["", *_by_host(reading)]
    waiting = hangs(reading.events)
    told = len(waiting.tasks) > 1 or any(one.holders for one in waiting.tasks)
    if waiting.deadlocks or (told and (everything or not many)):
        lines += ["", paint("What waits", "bold", colour=colour)]
        for text in hang_lines(waiting):
            lines += wrap(clean(text), width=width, first="  - ", rest="    ")
    if others and not many:
        lines += ["", paint("Also in the log", "bold", colour=colour)]
        for event in others[:SHOWN_EVENTS]:
            after = f", follows line {event.follows}" if event.follows else ""
            lines += wrap(f"{event.source}:{event.line}: {event.title}{after}", width=width, first="  - ")
        if len(others) > SHOWN_EVENTS:
            lines.append(f"  ... and {len(others) - SHOWN_EVENTS} more: --all shows them")
    if reading.events:
        for doubt in reading.suspicious[:SHOWN_EVENTS]:
            lines += wrap(clean(doubt.detail), width=width, first="Not seen ", rest=" " * 9)
    if reading.left_out:
        lines.append(f"  {reading.left_out} repetitions of these are not listed.")
    for build in reading.builds:
        lines += ["", *wrap(_build(build), width=width, first="Kernel   ", rest="         ")]
    steps = next_steps(reading)
    if steps:
        lines += ["", paint("Next", "bold", colour=colour), *bullets(steps, width=width, numbered=True)]
    return lines


def _by_host(reading: Reading) -> list[str]:
    """One line for each host, or log where none is named: its events, the worst first."""
    hosts: dict[str, list[tuple[Event, Judgement]]] = {}
    for event, said in reading.pairs:
        hosts.setdefault(event.host or event.source, []).append((event, said))
    rows = []
    for host, pairs in sorted(hosts.items(), key=lambda one: min(_rank(said) for _, said in one[1])):
        event, said = min(pairs, key=lambda pair: _rank(pair[1]))
        rows.append((clean(host), str(len(pairs)), clean(said.advisory or said.known_as or event.title)))
    more = [f"... and {len(rows) - SHOWN_HOSTS} more: --all shows every event"] if len(rows) > SHOWN_HOSTS else []
    return [*columns([("Host", "Events", "Worst"), *rows[:SHOWN_HOSTS]]), *more]


def _rank(said: Judgement) -> tuple[int, bool, float]:
    order = [Status.AFFECTED, Status.UNKNOWN]
    return (order.index(said.status) if said.status in order else 2, said.known_as is None, -said.confidence)


def _rows(reading: Reading) -> list[tuple[str, str, str]]:
    return [
        (str(len(logs)), str(len(hosts)), f"{clean(name)}: {status}")
        for (name, status), (logs, hosts) in table(reading).items()
    ]


def _event(event: Event, said: Judgement, reading: Reading, *, colour: bool, width: int, everything: bool) -> list[str]:
    where = f"{event.source}:{event.line}" + (f", at {event.time}" if event.time else "")
    rows = [
        ("What", _story(event) + "."),
        ("Title", event.title),
        ("Where", where),
        ("Kernel", " ".join(word for word in (event.kernel, event.arch) if word) or "not said"),
        ("Process", _process(event)),
        ("Waits", _waits(event)),
        ("Device", event.device or ""),
        ("Tainted", "; ".join(event.taint)),
        ("Why", said.why if said.status is not Status.NOT_AFFECTED or said.known_as or event.kind in TRAPS else ""),
        ("Report", ", ".join(w for w, on in (("cut off", event.truncated), ("garbled", event.corrupted)) if on)),
    ]
    lines = []
    for name, value in rows:
        if value:
            lines += wrap(value, width=width, first=f"{name:<8} ", rest=" " * 9)
    if event.trace:
        lines += ["", *_trace(event, colour=colour, most=len(event.trace) if everything else SHOWN_FRAMES)]
    lines += _code(event, everything=everything)
    if everything and event.registers:
        lines.append("")
        lines += wrap("  ".join(f"{k} {v}" for k, v in event.registers.items()), width=width, first="Registers ")
    lines += ["", *wrap(_consequence(event, reading), width=width, first="Then     ", rest=" " * 9)]
    lines += wrap(event.fingerprint, width=width, first="Print    ")
    return lines


def _trace(event: Event, *, colour: bool, most: int) -> list[str]:
    reliable = [frame for frame in event.trace if frame.reliable] or list(event.trace)
    names = [named(frame.function) for frame in reliable]
    notes = {names.index(event.function): "to blame"} if event.function in names else {}
    if event.trigger is not None:
        told = next((at for at, name in enumerate(names) if tells_trigger(name, event.trigger)), None)
        if told is not None:
            notes.setdefault(told, TRIGGER_NOTE[event.trigger])
    lines = []
    top = reliable[0] if reliable else None
    if event.ip and not (top is not None and event.ip.startswith(f"{top.function}+")):
        note = "nothing is there: a function pointer was never set" if event.kind == "null-call" else ""
        if not note and named(event.ip.partition("+")[0]) == event.function:
            note, notes = "to blame", {at: text for at, text in notes.items() if text != "to blame"}
        lines.append(_noted(event.ip, note, colour=colour))
    shown = 0
    for at, frame in enumerate(reliable):
        if at >= most and at not in notes:
            continue
        if at > shown:
            lines.append(f"  ... {at - shown} more")
        lines.append(_noted(_frame(frame), notes.get(at, ""), colour=colour))
        shown = at + 1
    if shown < len(reliable):
        lines.append(f"  ... {len(reliable) - shown} more")
    return lines


def _noted(text: str, note: str, *, colour: bool) -> str:
    text = clean(text)
    return f"  {paint(text, 'bold', colour=colour)}  <- {note}" if note else f"  {text}"


def _frame(frame: Frame) -> str:
    where = f"+{frame.offset:#x}/{frame.size:#x}" if frame.offset is not None and frame.size is not None else ""
    return f"{frame.function}{where}" + (f" [{frame.module}]" if frame.module else "")


def _code(event: Event, *, everything: bool) -> list[str]:
    if not event.code:
        return []
    from ejectable.crash.code import disassemble

    instructions = disassemble(event.code, event.arch)
    if not instructions:
        return []
    shown = instructions if everything else [one for one in instructions if -12 <= one.offset <= 0]
    lines = [f"  {'->' if one.trapping else '  '} {one.offset:+4d}  {one.text}" for one in shown]
    return ["", *lines]


def _story(event: Event) -> str:
    words = KINDS[event.kind]
    if event.function:
        words += f" from {event.function}" if event.kind == "null-call" else f", in {event.function}"
    trigger = TRIGGERS.get(event.trigger or "")
    return clean(f"{words} {trigger}" if trigger else words)


def _waits(event: Event) -> str:
    if not event.waits_for:
        return ""
    held = f"; held by {event.owner.name} (pid {event.owner.pid})" if event.owner else ""
    return f"for {event.waits_for}{held}"


def _process(event: Event) -> str:
    words = event.process or ""
    words += f" (pid {event.pid})" if event.pid is not None else ""
    words += f" on CPU {event.cpu}" if event.cpu is not None else ""
    return words.strip()


def _consequence(event: Event, reading: Reading) -> str:
    panicked = event.kind == "panic" or any(
        other.kind == "panic" and other.follows == event.line and other.source == event.source
        for other in reading.events
    )
    if panicked:
        return WHAT_FOLLOWS["panic"]
    if event.ends_log and event.kind in TRAPS:
        return WHAT_FOLLOWS["end"]
    if event.oops is not None:
        return WHAT_FOLLOWS["removal" if event.trigger in REMOVALS else "oops"]
    if event.kind in ("kasan", "kmsan"):
        return WHAT_FOLLOWS["memory"]
    if event.kind in ("hung-task", "soft-lockup", "hard-lockup", "rcu-stall"):
        return WHAT_FOLLOWS["wait"]
    return WHAT_FOLLOWS["report"]


def _build(build: Build) -> str:
    same = {True: "the build that crashed", False: "another build than the one that crashed", None: "cannot be told"}
    found = "; ".join(f"{one.advisory}: {one.status}, {one.reason}" for one in build.findings)
    return (
        f"{build.release or build.path}: {same[build.same]} ({build.agree} sizes agree, {build.differ} differ). {found}"
    )


def confidence_word(confidence: float) -> str:
    """How sure a match is, in a word. docs/crash.md says which evidence each stands for."""
    return "certain" if confidence >= CERTAIN else "likely" if confidence >= LIKELY else "possible"
