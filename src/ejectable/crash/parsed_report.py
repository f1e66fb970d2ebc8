# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that stands in a crash report, before anything is concluded from it."""

import re
from collections.abc import Sequence

import msgspec

from ejectable.crash.blame import bottom, interrupted, trapped
from ejectable.crash.frames import base, could_be_frame, frames_of, location, retyped
from ejectable.crash.report import REGISTER_LINES, Report
from ejectable.model import Frame

__all__ = ["ParsedReport", "parse"]


class ParsedReport(msgspec.Struct):
    """What stands in a report, before anything is concluded from it."""

    ip: Frame | None = None
    ip_address: int | None = None  # where no symbol was printed: a jump to nowhere
    address: int | None = None  # that was accessed
    access: str | None = None  # Read, Write
    fetch: bool = False  # the access was an instruction fetch
    error: str | None = None  # "0010"
    die: int | None = None  # the N of [#N]
    process: str | None = None
    pid: int | None = None
    cpu: int | None = None
    kernel: str | None = None
    arch: str | None = None
    taint: str | None = None
    hardware: str | None = None
    workqueue: str | None = None
    link: Frame | None = None  # the return address that a call left in a register
    at: list[Frame] = msgspec.field(default_factory=list)  # lockdep's `at: func+0x1/0x2`, in order
    held: list[Frame] = msgspec.field(default_factory=list)  # the same in a list of locks that are held
    became: list[Frame] = msgspec.field(default_factory=list)  # how a lock became safe in interrupts, as lockdep tells
    released: list[Frame] = msgspec.field(default_factory=list)  # who released a lock that it did not hold
    announced: int | None = None  # the first of `traces` that had a head; frames before may be another's
    allocated: list[Frame] = msgspec.field(default_factory=list)  # who allocated a bad page, as its owner tells
    traces: list[list[Frame]] = msgspec.field(default_factory=list)
    registers: dict[str, str] = msgspec.field(default_factory=dict)
    code: str | None = None
    modules: list[str] = msgspec.field(default_factory=list)
    last_function: str | None = None
    garbled: int = 0
    unreadable: list[str] = msgspec.field(default_factory=list)  # lines of a trace that may have been frames
    mixed: bool = False  # two tasks or two instruction pointers: another CPU's lines are among these


HEADER = re.compile(
    r"(?:CPU: ?(\d+) )?(?:UID: \d+ )?P(?:ID|id): ?(\d+),? [Cc]omm: ?(.{1,40}?)"
    r"(?: (Not tainted|Tainted: ?(?:[A-Z ]|\[[A-Z]\]=\w{1,40},? ?){0,60}?)"
    r"(?: {1,8}(?:\()?(\d\S{0,100})(?: .{0,200})?)?)?\s{0,8}$"
)
KERNEL = re.compile(r"(?:Not tainted|Tainted: [\w()\[\]=, ]{1,160}?) {0,8}\(?(\d{1,3}\.\d{1,3}[^\s)]{0,100})")
TAINT = re.compile(r"Tainted: ([A-Z ]{0,60})")
PROCESS = re.compile(r"Process (\S.{0,30}?) \(pid: ?(\d+)")
TASK = re.compile(r"INFO: task (\S.{0,40}?):(\d+) ")
STATE = re.compile(r"\btask:(\S.{0,40}?) {1,20}state:.{0,40}? pid: {0,8}(\d{1,10})")
LOCKUP = re.compile(r"CPU#(\d+) stuck for .{1,20}\[(.{1,40}?):(\d+)\]")
BY_TASK = re.compile(
    r"(Read|Write|read|write)\S* (?:of size|to|at) .{0,80}?by (?:task|interrupt)(?: (\S.{0,40}?)/(\d+))?"
)
ACCESS = re.compile(r"\b(Read|Write) (?:of size|at addr)")
PF = re.compile(r"#PF: supervisor (read|write|instruction fetch|\w+ access)")
ERROR = re.compile(
    r"\bOops: (?:Oops: )?([0-9a-f]{4,8})\b|error_code[=(](0x[0-9a-f]{1,8})|"
    r"(?:\w): ([0-9a-f]{4}) \[#|\bOops: ([0-9a-f]{1,8}) \[#"
)
DIE = re.compile(r"\[#(\d{1,6})\]")
ADDRESS = re.compile(
    r"(?:NULL pointer dereference(?:(?: on \w+)? at|, address:)|for address:|virtual address|"
    r"paging request at|on (?:read|write) at|"
    r"for (?:unknown|data at address|instruction fetch|unaligned access at)|access on (?:read|"
    r"write) at|Failing address:|faulting data address|Faulting instruction address:)"
    r"[: ]*(?:virtual address |address )?(?:0x)?([0-9a-f(][0-9a-f]{2,15}\b|\(null\))"
)
RIP = re.compile(
    r"(?:^|[\s|])(?:RIP: (?:e?[0-9a-f]{4}:)?|EIP: (?:[0-9a-f]{4}:)?|IP: |EIP is at |RIP \s?|"
    r"NIP |pc : |PC is at |epc ?: |ERA: |era ?: |PSW\s+: [0-9a-f]+ [0-9a-f]+ \(|PSW : )"
    r"(?:[0-9a-f]{4}:)?(?:\s*\[?<?(?:0x)?([0-9a-f]{8,16})>?\]?)?\s*(?:\[<([0-9a-f]+)>\]\s*)?[\s(]*(.{0,160})"
)
NULL_IP = re.compile(r"^(?:0x0+\b|\(null\)|0+\b|\[<\s*\(null\)>\]|\s*\(null\))")
BARE_IP = re.compile(r"^(?:0x)?([0-9a-f]{1,16})\b")
AT = re.compile(r",? at: (?:\[?<?[0-9a-f]{8,16}>?\]? ?)?(?:\{.{0,4}\}, )?")
REGISTERS = re.compile(
    r"\b((?:[RE](?:AX|BX|CX|DX|SI|DI|BP|SP|FLAGS)|R\d\d|CR[0234]|x\d{1,2}|sp|lr|r\d{1,2}|a\d|"
    r"s\d{1,2}|t\d|ra|tp|gp|fp|GPR\d\d|badaddr|cause|"
    r"status)) ?: ?(?:\d{4}:)?((?:0x)?[0-9a-f]{8,16})\b"
)
# A register of 64 bits is printed with sixteen digits: one with fewer has lost some.
SHORT = re.compile(r"\b(?:R(?:[A-D]X|[SD]I|BP|\d\d)|CR[234]|x\d{1,2} ?): ?[0-9a-f]{9,15}\b")
CODE = re.compile(r"^Code: ?(.{2,600})")
MODULES = re.compile(r"^\s*Modules linked in:(.*)")
WORKQUEUE = re.compile(r"Workqueue: (\S+)(?: (\S+))?")
HARDWARE = re.compile(r"Hardware name: (.{1,120})")
TRACE = re.compile(r"(?:Call [Tt]race|^\s*[Bb]acktrace|^stack backtrace|\bbacktrace(?: \(crc \w+\))?):?|^Call Trace")
OTHER_TRACE = re.compile(
    r"^\s*(?:Allocated|Freed) (?:by|in)|^(?:Allocated|Freed|Uninit was|Last potentially|"
    r"Second to last|Local variable|The buggy)|^-> #\d|^the existing dependency|"
    r"^stack backtrace:"
    r"|^NMI backtrace for cpu|^Showing all locks|^\d+ locks? held by|^(?:irq event|hardirqs|"
    r"softirqs) |^other info that|^NMI watchdog:|^\s*-+\[ cut here|^(?:Reported|Value changed|"
    r"page last|page_owner|kfence-#)"
    r"|^(?:read|write|assert|race)\b.{0,60}(?: to |at )0x|^\.{3} which became"
    r"| is trying to release lock .{0,200} at:$|^\s*task:\S.{0,40} state:"
)
USER_REGS = re.compile(
    r"^\s*(?:</?TASK>\s*)?(?:RIP: (?:0033|002b|0023):|RSP: 002b|Exception stack\(|"
    r"--- (?:interrupt|Exception): c00|ORIG_RAX:)"
)
LAST_FUNCTION = re.compile(r"last function: (\w+)|in-flight: \d+(?:\(RESCUER\))?:(\w+)")
ARCHES = {
    "RIP: ": "x86_64",
    "RAX: ": "x86_64",
    "EIP: ": "i386",
    "EAX: ": "i386",
    "EIP is at": "i386",
    "pstate: ": "aarch64",
    "x29: ": "aarch64",
    "psr: ": "arm",
    "epc :": "riscv64",
    "epc: ": "riscv64",
    "NIP [": "ppc64le",
    "NIP:  ": "ppc64le",
    "GPR00": "ppc64le",
    "Krnl PSW": "s390x",
    "ERA: ": "loongarch64",
    "era : ": "loongarch64",
    "unwind_backtrace": "arm",
    "entry_SYSCALL_64": "x86_64",
    "el0_svc": "aarch64",
    "el1h_64": "aarch64",
    "ret_fast_syscall": "arm",
    "do_trap_ecall_u": "riscv64",
    "handle_syscall": "loongarch64",
}
# How lines begin that name the link register: `lr : func+0x1/0x2` (arm64), `LR is at func` (arm), ` ra : func`
# (riscv), `ra: 9000 func` (loongarch), `LR [c000] func` (powerpc).
LINKS = frozenset(("lr :", "LR i", " ra ", "ra :", "ra: ", "LR ["))
SIGNS = re.compile("|".join(re.escape(sign) for sign in ARCHES))
HELD = re.compile(r" {0,8}#\d{1,3}: ")
AT_BARE = re.compile(r"at: ")
# The first four characters of lines that only structure a trace, or belong to user space.
MARKS = frozenset(
    (
        " <TA",
        " </T",
        " <IR",
        " </I",
        " <EO",
        " <NM",
        " </N",
        " <#D",
        " </#",
        " <SO",
        " </S",
        "<TAS",
        "</TA",
        "<IRQ",
        "</IR",
        " <EN",
        "RIP:",
        "RSP:",
        "ORIG",
        "--- ",
        "Exce",
        " RIP",
    )
)


def parse(report: Report) -> ParsedReport:
    """Read the lines of a report, once, in order."""
    key = tuple(report.texts)
    parsed = REMEMBERED.get(key)
    if parsed is None:
        parsed = _read(key)
        if len(key) < 400:
            if len(REMEMBERED) >= MOST_REMEMBERED:
                del REMEMBERED[next(iter(REMEMBERED))]
            REMEMBERED[key] = parsed
    return parsed


# A machine in trouble says the same again and again, to the letter. ParsedReport are not changed once they are read.
REMEMBERED: dict[tuple[str, ...], "ParsedReport"] = {}
MOST_REMEMBERED = 64


def _read(texts: Sequence[str]) -> ParsedReport:
    parsed = ParsedReport()
    collecting: list[Frame] | None = None
    behind = False
    for text in texts:
        if "+0x" in text or ("(" in text and collecting is not None) or (collecting is not None and "+" in text):
            frames = frames_of(text)
            if not frames and (found := retyped(text)):
                parsed.garbled += 1
                frames = (found,)
            if frames:
                if collecting is None:
                    # A trace whose announcement was lost, or an architecture that makes none.
                    collecting = []
                    parsed.traces.append(collecting)
                if len(collecting) < MOST_FRAMES:
                    if len(frames) == 2 and collecting and collecting[-1].function == frames[0].function:
                        collecting[-1:] = frames
                    else:
                        collecting.extend(frames)
                continue
        if not text:
            continue
        if collecting is not None:
            if text.startswith(BEHIND_TRACE):
                behind = True
            elif not behind and could_be_frame(text) and len(parsed.unreadable) < MOST_UNREADABLE:
                parsed.unreadable.append(text.strip())
        if text[:4] == "RIP:" and "O" in text[:24]:
            text = TYPED_RIP.sub(_with_zeros, text)  # noqa: PLW2901  (the same line, read)
        before = collecting
        collecting = _line(parsed, text, collecting)
        behind = behind and collecting is before
        if text.startswith("---[ end"):
            collecting = None  # what follows is said again: registers, the instruction pointer
        if "\ufffd" in text:
            parsed.garbled += 1
    if parsed.announced is not None:
        parsed.announced = (
            sum(map(bool, parsed.traces[: parsed.announced])) if parsed.traces[parsed.announced] else None
        )
    parsed.traces = [trace for trace in parsed.traces if trace]
    return parsed


# With these a trace is over, though more of its report follows.
BEHIND_TRACE = (
    "Modules linked",
    "---[",
    "Code: ",
    "RIP: ",
    "CR2: ",
    " </TASK>",
    "Kernel panic",
    "Kernel Offset",
    "note: ",
)
MOST_UNREADABLE = 8
MOST_FRAMES = 1200  # where a stack overflows, the trace is as long as the recursion
MOST_TRACES = 400
MOST_MODULES = 300
MOST_REGISTERS = 64


TYPED_RIP = re.compile(r"\ARIP: ?[0O]{2}[0-9O]{2}:(?:[0O][xX][0O]{1,16}\b)?")


def _with_zeros(match: re.Match[str]) -> str:
    """What somebody typed with the letter O for the digit."""
    return match.group(0).replace("O", "0")


def _line(parsed: ParsedReport, text: str, collecting: list[Frame] | None) -> list[Frame] | None:
    """One line that is no frame; the trace that later frames go to, or `None`."""
    head = text[:4]
    if head in REGISTER_LINES:
        _registers(parsed, text)
        return collecting
    if head in MARKS:
        if collecting is not None and not text.strip().strip("</>").strip("ABCDEFIKMNOQRST#"):
            return collecting  # <IRQ>, </TASK>, <EOI>
        if text.startswith("Exception stack(") and collecting and not bottom(base(collecting[-1].function)):
            return collecting  # the kernel's own was interrupted: its frames follow
        if USER_REGS.match(text):
            return None
    if head == "Pree" and text.startswith("Preemption disabled at"):
        return []  # a place follows, not a trace
    if "race" in text and TRACE.search(text) and len(parsed.traces) < MOST_TRACES:
        trace: list[Frame] = []
        if parsed.announced is None or not parsed.traces[parsed.announced]:
            parsed.announced = len(parsed.traces)
        parsed.traces.append(trace)
        return trace
    if (
        (text.endswith(" at:") if not parsed.traces else parsed.traces[-1])
        and OTHER_TRACE.search(text)
        and len(parsed.traces) < MOST_TRACES
    ):
        trace = []
        parsed.traces.append(trace)
        collecting = trace
        if text.startswith("page last allocated") and not parsed.allocated:
            parsed.allocated = trace
        elif "which became" in text and not parsed.became:
            parsed.became = trace
        elif "release lock" in text and not parsed.released:
            parsed.released = trace
    if "omm" in text and (match := HEADER.search(text)):
        if parsed.pid not in (None, _int(match.group(2))) and not any(parsed.traces):
            parsed.mixed = True
        if parsed.pid is None:
            parsed.pid = _int(match.group(2))
            parsed.process = match.group(3).strip()
        if parsed.cpu is None:
            parsed.cpu = _int(match.group(1))
    if "ainted" in text:
        if parsed.kernel is None and (match := KERNEL.search(text)):
            parsed.kernel = match.group(1)
        if parsed.taint is None and (match := TAINT.search(text)):
            parsed.taint = match.group(1)
    if parsed.pid is None:
        _task(parsed, text)
    if parsed.access is None and (" of size" in text or " at addr" in text) and (match := ACCESS.search(text)):
        parsed.access = match.group(1)
    if "#PF: " in text and (match := PF.search(text)):
        parsed.fetch = parsed.fetch or match.group(1) == "instruction fetch"
    if (
        parsed.address is None
        and ("ddress" in text or " at " in text or "for " in text)
        and (match := ADDRESS.search(text))
    ):
        value = match.group(1)
        parsed.address = 0 if value.startswith("(") else _int(value, 16)
        if 8 < len(value) < 16 and text[match.start(1) - 2 : match.start(1)] != "0x":
            parsed.garbled += 1  # a pointer has eight or sixteen digits
    if "[#" in text:
        if parsed.die is None and (match := DIE.search(text)):
            parsed.die = _int(match.group(1))
        if parsed.error is None and (match := ERROR.search(text)):
            parsed.error = next((group for group in match.groups() if group), None)
    if collecting and text.lstrip()[:5] == "RIP: ":
        _interrupted(parsed, text, collecting)
    elif (
        parsed.ip is None
        and parsed.ip_address is None
        and ("P" in text or "pc" in text or "epc" in text or "era" in text or "ERA" in text)
    ):
        _instruction_pointer(parsed, text)
    elif head == "RIP:" and not any(parsed.traces) and _is_another(parsed, text):
        parsed.mixed = True
    if "at: " in text:
        found = AT.search(text) or AT_BARE.match(text)
        frame = location(text[found.end() :]) if found else None
        places = parsed.held if HELD.match(text) else parsed.at
        if frame and len(places) < MOST_FRAMES:
            places.append(frame)
    if head == "Code":
        if parsed.code is None and (match := CODE.match(text)):
            parsed.code = match.group(1).strip()
    elif head in LINKS and parsed.link is None:
        parsed.link = location(text)
    elif head == "  EC" and "IABT" in text:  # arm64's exception class: instruction abort
        parsed.fetch = True
    elif ": " in text:
        _registers(parsed, text)
    if "inked in" in text and not parsed.modules and (match := MODULES.match(text)):
        words = match.group(1).split("[last unloaded")[0].split()
        parsed.modules = [word.partition("(")[0] for word in words[:MOST_MODULES]]
    if "orkqueue: " in text and parsed.workqueue is None and (match := WORKQUEUE.search(text)):
        parsed.workqueue = " ".join(group for group in match.groups() if group)
    if head == "Hard" and parsed.hardware is None and (match := HARDWARE.search(text)):
        parsed.hardware = match.group(1).strip()
    if (
        parsed.last_function is None
        and ("in-flight" in text or "last func" in text)
        and (match := LAST_FUNCTION.search(text))
    ):
        parsed.last_function = match.group(1) or match.group(2)
    _arch(parsed, text)
    return collecting


def _registers(parsed: ParsedReport, text: str) -> None:
    if len(parsed.registers) < MOST_REGISTERS:
        if SHORT.search(text):
            parsed.garbled += 1
        for name, value in REGISTERS.findall(text):
            # The first are the kernel's; a user's may follow the trace. Two values before it are two reports in one.
            if parsed.registers.setdefault(name, value) != value and not parsed.traces:
                parsed.garbled += 1
    _arch(parsed, text)


def _arch(parsed: ParsedReport, text: str) -> None:
    if parsed.arch is None and (match := SIGNS.search(text)):
        parsed.arch = ARCHES[match.group(0)]


def _task(parsed: ParsedReport, text: str) -> None:
    """Who was running, as reports say it that have no `CPU: PID: Comm:` line."""
    if "task:" in text and (match := STATE.search(text)):
        parsed.process, parsed.pid = match.group(1), _int(match.group(2))
    elif "INFO: task" in text or "Process " in text:
        if match := TASK.search(text) or PROCESS.search(text):
            parsed.process, parsed.pid = match.group(1), _int(match.group(2))
    elif "stuck for" in text and parsed.cpu is None:
        if match := LOCKUP.search(text):
            parsed.cpu, parsed.process, parsed.pid = _int(match.group(1)), match.group(2), _int(match.group(3))
    elif " by " in text and (match := BY_TASK.search(text)) and match.group(3):
        parsed.process, parsed.pid = match.group(2), _int(match.group(3))


def _interrupted(parsed: ParsedReport, text: str, trace: list[Frame]) -> None:
    """The registers of what was interrupted, within a trace: it has no frame of its own there, so this line is it."""
    frame = location(text)
    if frame is None or USER_REGS.match(text) or len(trace) >= MOST_FRAMES:
        return
    above = base(trace[-1].function)
    if trapped(above) and parsed.ip is None and parsed.ip_address is None:
        parsed.ip = frame
    if trapped(above) or interrupted(above):
        trace.append(frame)


def _is_another(parsed: ParsedReport, text: str) -> bool:
    """Whether a second instruction pointer of the kernel is not the first one, said again."""
    frame = location(text)
    if USER_REGS.match(text) or (frame is None and "0x0" not in text):
        return False
    if parsed.ip is None:
        return frame is not None
    return frame is None or frame.function != parsed.ip.function


def _instruction_pointer(parsed: ParsedReport, text: str) -> None:
    match = RIP.search(text)
    if not match:
        return
    if text.lstrip().startswith(("RIP: 0033", "RIP: 002b", "RIP: 0023")) or text.endswith("[inline]"):
        return
    rest = match.group(3)
    if "(null)" in match.group(0)[:80]:
        parsed.ip_address = 0
        return
    frame = location(rest)
    if frame and rest.find(frame.function) < 40:
        parsed.ip = frame
        return
    if NULL_IP.match(rest):
        parsed.ip_address = 0
        return
    value = match.group(1) or match.group(2)
    if value is None and (bare := BARE_IP.match(rest)):
        value = bare.group(1)
    if value is not None:
        parsed.ip_address = _int(value, 16)


def _int(text: str | None, radix: int = 10) -> int | None:
    if text is None or len(text) > 20:
        return None
    try:
        return int(text, radix)
    except ValueError:
        return None
