# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console, as it comes: our own lines picked out, a fatal report noticed at its beginning, all of it kept.

A line of ours is "<token>: words" somewhere behind the kernel's time stamp (see init.sh). What is not ours goes to
the crash reader, which decides what is a crash: words like "BUG: " also stand in what drivers say.
"""

import asyncio
import re
import time
from collections import deque

import msgspec

from ejectable.lab.attribution import PHASES, Mark
from ejectable.lab.watch import CrashWatch
from ejectable.model import Event

__all__ = ["Console"]

# How much of a transcript is kept: a guest that floods its console fills no disk.
TRANSCRIPT_LIMIT = 8 << 20
LINE_LIMIT = 4096
TAIL_LINES = 40
# How many lines of a flood are read before the crash reader is spared the rest; a crash is still noticed.
READ_LIMIT = 16 << 20

# Words of whatever makes a kernel stop, or kills one of its threads (lib/bug.c, kernel/panic.c, arch/x86/mm/fault.c,
# arch/x86/kernel/{traps,dumpstack}.c, arch/arm64/{mm/fault,kernel/traps}.c): only a line with one is worth a question
# to the crash reader.
_SUSPECT = re.compile(
    r"BUG|Oops|Internal error: |[Uu]nable to handle |general protection fault|Kernel panic - |double fault"
    r"|divide.error|invalid opcode|stack segment|stack guard page|tack overflow|stack-overflow|Insufficient stack|\[#\d"
)
_REPORT_ENDED = re.compile(r"---\[ end trace ")
_NUMBER = re.compile(r"[0-9]{1,10}")  # the guest may say anything: "²" is a digit too
_PANIC_ENDED = re.compile(r"---\[ end Kernel panic")


class Console:
    """What the guest says. The events are what an experiment waits for, `marks` the phases that have begun."""

    def __init__(self, token: str, *, started: float, watch: CrashWatch) -> None:
        self._token = f"{token}: "
        self._started = started
        self._transcript: list[bytes] = []
        self._kept = 0
        self._read = 0
        self._rest = b""
        self._watch = watch
        self._answers: dict[int, asyncio.Future[str]] = {}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.problems: list[str] = []  # what our own program complained about
        self.hello = asyncio.Event()
        self.up = asyncio.Event()
        self.release: str | None = None  # as the guest's uname says
        self.boot_s: float | None = None
        self.last_byte = started
        self.marks: list[Mark] = []
        self.crash_begun = asyncio.Event()
        self.crash_ended = asyncio.Event()  # the report came to its end mark
        self.panicked = asyncio.Event()
        self.panic_ended = asyncio.Event()  # the panic came to its end mark
        self._suspect = False  # the report that is being told may turn out to be fatal

    @property
    def events(self) -> tuple[Event, ...]:
        """What the crash reader has read so far."""
        return self._watch.events

    @property
    def transcript(self) -> bytes:
        """What came, up to a limit: what was left out is said, and the last lines stand below."""
        if self._read <= self._kept:
            return b"".join(self._transcript)
        left_out = f"\n[... {self._read - self._kept} bytes left out; the last lines:]\n"
        return b"".join((*self._transcript, left_out.encode(), "\n".join(self.tail).encode(), b"\n"))

    @property
    def kernel_lines(self) -> list[str]:
        """What the kernel said, without our own lines; as far as the transcript goes."""
        lines = self.transcript.decode(errors="replace").splitlines()
        return [line for line in lines if self._token not in line]

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self.last_byte = time.monotonic()
        self._read += len(data)
        if self._kept < TRANSCRIPT_LIMIT:
            self._transcript.append(data[: TRANSCRIPT_LIMIT - self._kept])
            self._kept += len(self._transcript[-1])
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line[:LINE_LIMIT].rstrip(b"\r").decode(errors="replace"))
        if len(self._rest) > LINE_LIMIT:
            self._line(self._rest[:LINE_LIMIT].decode(errors="replace"))
            self._rest = b""

    def finish(self) -> tuple[Event, ...]:
        """Nothing more comes: what the crash reader makes of all of it."""
        if self._rest:
            self._line(self._rest.decode(errors="replace"))
            self._rest = b""
        return self._watch.finish()

    def answer(self, number: int) -> "asyncio.Future[str]":
        """The answer to come to command `number`."""
        return self._answers.setdefault(number, asyncio.get_running_loop().create_future())

    def forget(self, number: int) -> None:
        """Wait no longer for an answer."""
        self._answers.pop(number, None)

    def _line(self, line: str) -> None:
        at = line.find(self._token)
        if at >= 0:
            self._watch.skip()
            self._ours(line[at + len(self._token) :])
            return
        self.tail.append(line)
        self._suspect = self._suspect or _SUSPECT.search(line) is not None
        if self._suspect or self._read <= READ_LIMIT:
            self._watch.feed(f"{line}\n".encode())
        else:
            self._watch.skip()
        if self._suspect:
            fatal = self._watch.fatal()
            if fatal:
                self.crash_begun.set()
            if any(event.kind == "panic" for event in fatal):
                self.panicked.set()
            self._suspect = self._watch.busy and not self.panicked.is_set()
        if self.crash_begun.is_set() and _REPORT_ENDED.search(line):
            self.crash_ended.set()
        if self.panicked.is_set() and _PANIC_ENDED.search(line):
            self.crash_ended.set()
            self.panic_ended.set()

    def _ours(self, words: str) -> None:
        verb, _, rest = words.partition(" ")
        if verb == "hello":
            self.boot_s = self.boot_s or time.monotonic() - self._started
            self.release = rest.strip() or None
            self.hello.set()
        elif verb == "up":
            self.up.set()
        elif verb == "mark":
            self._mark(rest.split())
        elif verb == "=":
            number, _, said = rest.partition(" ")
            waiting = self._answers.pop(int(number), None) if _NUMBER.fullmatch(number) else None
            if waiting is not None and not waiting.done():
                waiting.set_result(said.strip())
        else:
            self.problems.append(words.strip())

    def _mark(self, words: list[str]) -> None:
        """A phase begins ("mark NUMBER PHASE"), or the trigger's process tells its own number ("mark by PID")."""
        if len(words) != 2:
            return
        if words[0] == "by" and _NUMBER.fullmatch(words[1]) and self.marks:
            self.marks[-1] = msgspec.structs.replace(self.marks[-1], pid=int(words[1]))
        for phase in PHASES:
            if phase == words[1] and _NUMBER.fullmatch(words[0]):
                self.marks.append(Mark(int(words[0]), phase, self._watch.line))
