# SPDX-License-Identifier: GPL-2.0-or-later
"""The reader: bytes of a log in, events out, as they come.

    reader = Reader("console.log")
    events = reader.feed(data)      # as often as there is something; events that are complete
    events += reader.finish()       # the log has ended

Memory is bounded: a line by `LONGEST_LINE`, a report by `MOST_LINES`, the open reports by `MOST_OPEN`.
"""

from collections.abc import Callable

import msgspec

from ejectable.crash.assembly import GAP, MOST_LINES, Assembly
from ejectable.crash.context import Context
from ejectable.crash.lines import PRINTK, Line, clean, read
from ejectable.crash.oops_patterns import find
from ejectable.crash.prefixes import Prefixes
from ejectable.crash.report import REGISTER_LINES, Report
from ejectable.model import Event

__all__ = ["LONGEST_LINE", "Reader"]

LONGEST_LINE = 16384  # bytes; printk's own limit is 1 KiB, journals and JSON wrap it
MOST_EVENTS = 2000  # listed of one log; of one bug, MOST_ALIKE
MOST_ALIKE = 50
MOST_KNOWN = 4096
MOST_HOSTS = 64  # whose reports are kept apart at once

# With what a line begins that has no prefix but printk's; phones add `(0)[..]`, `I[0: ..]`, `c0  123 `, ` [3: ..]`.
NO_PREFIX = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -=#_/*.{")

# How the lines begin, but for frames, in which what is left of a report may begin.
BEGINNINGS = REGISTER_LINES | frozenset(
    ("RIP:", "EIP:", "Call", "Code", "PC i", "pc :", "CPU:", "Modu", "Back", "epc ")
)

printk = PRINTK.match


class Reader:
    """Reads one log. `line` is the number of the last line seen, from 1."""

    def __init__(
        self, source: str, *, first_line: int = 1, matters: Callable[[Event], bool] = lambda _event: False
    ) -> None:
        """`matters` says whether an event must be given though the bounds of what is listed are reached."""
        self.source = source
        self._matters = matters
        self._promoted: set[str] = set()  # fingerprints of events that were given beyond the bounds
        self.line = first_line - 1
        self.prefixes: Prefixes | None = None  # what stands before the kernel's words, as learned from the log
        self.left_out = 0  # events like those that were given already
        self._alike: dict[str, int] = {}
        self._known_by_sight: set[int] = set()  # what of these need not be read any more
        self._given = 0
        self._events: list[Event] = []  # complete, and not handed out yet
        self._binary = False  # the journal's export format announced a value with its length
        self._rest = b""
        self._skipping = False
        self._now = Assembly(self._emit)  # the host that spoke last
        self._hosts: dict[str, Assembly] = {"": self._now}

    def feed(self, data: bytes) -> list[Event]:
        """Read on; returns the events that are complete with this."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return self._handed_out()
        whole, rest = self._rest + data[:end] if self._rest else data[:end], data[end:]
        self._rest = b""
        if self._skipping:
            # The tail of a line that was longer than any line may be.
            whole = whole[whole.index(b"\n") + 1 :]
            self._skipping = False
        if whole:
            text = whole.decode("utf-8", "replace")
            dirty = "\r" in text or "\x1b" in text or "\x00" in text or "\ufeff" in text
            lines = text.split("\n")
            lines.pop()
            if dirty:
                for line in lines:
                    self.line += 1
                    self._take(line, dirty=True)
            else:
                self._take_all(lines)
        self._keep(rest)
        return self._handed_out()

    def _handed_out(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line for the next time; of a line too long, read what there is and drop the rest."""
        if self._skipping:
            return
        self._rest += rest
        if len(self._rest) > LONGEST_LINE:
            self.line += 1
            self._take(self._rest[:LONGEST_LINE].decode("utf-8", "replace"), dirty=True)
            self._skipping = True
            self._rest = b""

    def skip(self, lines: int) -> None:
        """Say that `lines` whole lines in which nothing begins were left out."""
        self.line += lines

    def finish(self) -> list[Event]:
        """The log has ended: what is open is an event too, cut off perhaps."""
        if self._rest and not self._skipping:
            self.line += 1
            self._take(self._rest.decode("utf-8", "replace"), dirty=True)
        self._rest = b""
        for assembly in self._hosts.values():
            assembly.close()
        return sorted(self._handed_out(), key=lambda event: event.line)

    def quiet(self) -> list[Event]:
        """Nothing came for a while: the events that are open, as they stand."""
        for assembly in self._hosts.values():
            assembly.close()
        return sorted(self._handed_out(), key=lambda event: event.line)

    @property
    def busy(self) -> bool:
        """Whether a report is open."""
        return any(assembly.open for assembly in self._hosts.values())

    @property
    def context(self) -> Context:
        """What is known of the machine that spoke last."""
        return self._now.context

    @property
    def suspicious(self) -> tuple[int, str] | None:
        """The first line that speaks of a crash, and is in no report."""
        return min((one.suspicious for one in self._hosts.values() if one.suspicious), default=None)

    @property
    def midline(self) -> bool:
        """Whether the last line that was fed has no end yet."""
        return bool(self._rest) or self._skipping

    @property
    def pending(self) -> list[Event]:
        """The events under way, as they would be if the log ended here."""
        from ejectable.crash.events import event_of

        found = []
        for assembly in self._hosts.values():
            for report in assembly.unfinished:
                was, report.cut = report.cut, not report.ended
                found.append(event_of(report, self.source, assembly.context))
                report.cut = was
        return sorted(found, key=lambda event: event.line)

    def _take_all(self, lines: list[str]) -> None:
        """Take whole, clean lines. Those with printk's prefix and no other go the short way, which is most of them."""
        number = self.line
        opened = self._now.open
        for text in lines:
            number += 1
            match = printk(text)
            if match is None:
                self.line = number
                self._take(text, dirty=False)
                opened = self._now.open
                continue
            body = text[match.end() :]
            first = body[:1]
            caller = match.group(2) or ""
            report = opened.get(caller)
            if report is not None and report.gap < GAP and len(report.texts) < MOST_LINES:
                if first == " " and "+0x" in body and (body[1:2] != "[" or body[2:3] == "<"):
                    # A frame: nothing but a part of the report.
                    report.texts.append(body)
                    report.last = number
                    report.gap = 0
                    continue
                if body[:4] in REGISTER_LINES:
                    report.texts.append(body)
                    report.last = number
                    report.gap += 1
                    continue
            self.line = number
            if (
                first not in NO_PREFIX
                or body[1:2] == "["
                or (first == "c" and body[1:2].isdigit())
                or "]: " in text
                or " kernel: " in text
                or len(text) > LONGEST_LINE
            ):
                self._take(text, dirty=False)
                opened = self._now.open
            elif (
                report is not None
                or opened
                or self._now.last is None
                or body[:3] == "Lin"
                or "irtio" in body
                or "+0x" in body
                or body[:4] in BEGINNINGS
                or find(body)
            ):
                self._now.see(Line(body, match.group(1), caller), number)
        self.line = number

    def _take(self, text: str, *, dirty: bool) -> None:
        if len(text) > LONGEST_LINE:
            text = text[:LONGEST_LINE]
        if self._binary:
            # Eight bytes of length, then the value (systemd's JOURNAL_EXPORT_FORMATS).
            self._binary = False
            text = "MESSAGE=" + text.lstrip("\x00\ufffd")[-max(len(text) - 8, 0) :]
        if dirty:
            text = clean(text)
        if text == "MESSAGE":
            self._binary = True
            return
        host = ""
        if self.prefixes is not None:
            text, host = self.prefixes.strip(text)
        line = read(text)
        if line is None:
            return
        line.host = line.host or host
        if "\n" in line.text:  # a journal's record may hold several lines
            for piece in line.text.split("\n")[:500]:
                inner = read(piece) or Line("")
                self._see(Line(inner.text, inner.time or line.time, inner.caller or line.caller, line.host))
            return
        self._see(line)

    def _see(self, line: Line) -> None:
        if line.host:
            self._now = self._hosts.get(line.host) or self._host(line.host)
        self._now.see(line, self.line)

    def _host(self, name: str) -> Assembly:
        """A host that speaks for the first time, or again after a long time."""
        if len(self._hosts) == 1 and not self._now.open and self._now.last is None and "" in self._hosts:
            self._hosts[name] = self._now  # what was said without a name may be its own
            return self._now
        if len(self._hosts) >= MOST_HOSTS:
            oldest = next(iter(self._hosts))
            self._hosts.pop(oldest).close()
        self._hosts[name] = Assembly(self._emit)
        return self._hosts[name]

    def _emit(self, assembly: Assembly, report: Report) -> None:
        from ejectable.crash.events import (  # its patterns are not compiled where nothing happened
            event_of,
            first_is_missing,
        )

        sight = report.sight
        if sight in self._known_by_sight:
            self.left_out += 1
            return
        event = event_of(report, self.source, assembly.context)
        assembly.context.learn(event)
        if event.oops is not None:
            if event.oops > 1 and event.follows is None:
                if assembly.first_oops is None:
                    event = msgspec.structs.replace(event, doubts=(*event.doubts, first_is_missing(event)))
                else:
                    event = msgspec.structs.replace(event, follows=assembly.first_oops)
            if assembly.first_oops is None:
                assembly.first_oops = event.line
        alike = self._alike.get(event.fingerprint, 0)
        # One bug over and over must not fill the memory.
        if alike >= MOST_ALIKE or self._given >= MOST_EVENTS:
            if len(self._known_by_sight) < MOST_KNOWN:
                self._known_by_sight.add(sight)
            if not self._promote(event):
                self.left_out += 1
                return
        if len(self._alike) < MOST_KNOWN:
            self._alike[event.fingerprint] = alike + 1
        self._given += 1
        self._events.append(event)

    def _promote(self, event: Event) -> bool:
        """Whether an event beyond the bounds is given all the same: the first of its kind that matters."""
        if event.fingerprint in self._promoted or len(self._promoted) >= MOST_EVENTS or not self._matters(event):
            return False
        self._promoted.add(event.fingerprint)
        return True
