# SPDX-License-Identifier: GPL-2.0-or-later
"""The reader: bytes of a log in, events out, as they come.

    reader = Reader("console.log")
    events = reader.feed(data)      # as often as there is something; events that are complete
    events += reader.finish()       # the log has ended

Memory is bounded: a line by `LONGEST_LINE`, a report by `MOST_LINES`, the open reports by `MOST_OPEN`.
"""

import re
from collections import deque
from collections.abc import Callable

import msgspec

from ejectable.crash.context import Context
from ejectable.crash.lines import PRINTK, Line, clean, read
from ejectable.crash.oops_pattern import Match, OopsPattern
from ejectable.crash.oops_patterns import CAUSED, CONSEQUENCE, find, speaks_of_a_crash
from ejectable.crash.report import REGISTER_LINES, Report
from ejectable.model import Event

__all__ = ["LONGEST_LINE", "Reader"]

LONGEST_LINE = 16384  # bytes; printk's own limit is 1 KiB, journals and JSON wrap it
MOST_LINES = 1200  # of one report: NMI backtraces of all CPUs are long
MOST_EVENTS = 2000  # listed of one log; of one bug, MOST_ALIKE
MOST_ALIKE = 50
MOST_KNOWN = 4096
MOST_OPEN = 32  # reports at once, one per caller
GAP = 40  # lines without evidence after which a report is over
PANIC_WINDOW = 12  # lines between a warning and a panic that comes before the warning's trace
TRAP_WINDOW = 25  # lines between a report's head and its die line
FOLLOW_WINDOW = 400  # lines within which a panic belongs to what came before

# With what a line begins that has no prefix but printk's; phones add `(0)[..]`, `I[0: ..]`, `c0  123 `, ` [3: ..]`.
NO_PREFIX = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghijklmnopqrstuvwxyz0123456789 -=#_/*.{")
# With what a line begins that may end a report, or says that other CPUs' traces follow.
ENDINGS = frozenset(("---", "===", "Lin", "Reb", "Ker", "Sen"))
# Reports that print a rule of `=` behind them.
RULED = ("kasan", "kmsan", "kcsan", "ubsan")

# With these a report is over: its own end mark, or the machine's.
LAST_WORDS = ("---[ end ", "Rebooting in ", "Kernel Offset: ")
# Reports of which further lines look like a beginning: within how many lines, or with which words.
REPEATED = {"leak": (3, ("unreferenced ",)), "slab": (1, ("INFO: ",)), "rcu-stall": (12, ())}

printk = PRINTK.match
LOST = Match(OopsPattern("lost", re.compile(""), "other", "Oops in {f} (its beginning is missing)", trap=True), ())
ORPHAN = re.compile(
    r"(?:CPU: \d|RIP: 00[01]|EIP: |pc : |PC is at|epc : |NIP |Code: |Call [Tt]race:|"
    r"Modules linked in| \[<|Oops|Hardware name)"
)


class Reader:
    """Reads one log. `line` is the number of the last line seen, from 1."""

    def __init__(
        self, source: str, *, first_line: int = 1, matters: Callable[[Event], bool] = lambda _event: False
    ) -> None:
        """`matters` says whether an event must be given though the bounds of what is listed are reached."""
        self.source = source
        self._matters = matters
        self._promoted: set[str] = set()  # fingerprints of events that were given beyond the bounds
        self.suspicious: tuple[int, str] | None = None  # the first line that speaks of a crash, and is in no report
        self.line = first_line - 1
        self.context = Context()
        self.printed = 0  # lines that looked like the kernel's: with printk's time, or from `kernel:`
        self.left_out = 0  # events like those that were given already
        self._alike: dict[str, int] = {}
        self._known_by_sight: set[int] = set()  # what of these need not be read any more
        self._given = 0
        self._first_oops: int | None = None  # the line of this boot's first
        self._binary = False  # the journal's export format announced a value with its length
        self._rest = b""
        self._skipping = False
        self._open: dict[str, Report] = {}
        self._recent: deque[str] = deque(maxlen=160)
        self._waited_for: tuple[str | None, ...] | None = None  # the network device that does not become free
        self._last: Report | None = None  # the report that began last, open or not
        self._last_first: int | None = None  # the first of the chain that it belongs to

    def feed(self, data: bytes) -> list[Event]:
        """Read on; returns the events that are complete with this."""
        events: list[Event] = []
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data, events)
            return events
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
                    self._take(line, events, dirty=True)
            else:
                self._take_all(lines, events)
        self._keep(rest, events)
        return events

    def _keep(self, rest: bytes, events: list[Event]) -> None:
        """Keep the beginning of a line for the next time; of a line too long, read what there is and drop the rest."""
        if self._skipping:
            return
        self._rest += rest
        if len(self._rest) > LONGEST_LINE:
            self.line += 1
            self._take(self._rest[:LONGEST_LINE].decode("utf-8", "replace"), events, dirty=True)
            self._skipping = True
            self._rest = b""

    def skip(self, lines: int) -> None:
        """Say that `lines` whole lines in which nothing begins were left out."""
        self.line += lines

    def finish(self) -> list[Event]:
        """The log has ended: what is open is an event too, cut off perhaps."""
        events: list[Event] = []
        if self._rest and not self._skipping:
            self.line += 1
            self._take(self._rest.decode("utf-8", "replace"), events, dirty=True)
        self._rest = b""
        for report in sorted(self._open.values(), key=lambda one: one.number):
            report.cut = not report.ended
            self._emit(report, events)
        self._open.clear()
        events.sort(key=lambda event: event.line)
        return events

    @property
    def busy(self) -> bool:
        """Whether a report is open."""
        return bool(self._open)

    @property
    def midline(self) -> bool:
        """Whether the last line that was fed has no end yet."""
        return bool(self._rest) or self._skipping

    @property
    def pending(self) -> list[Event]:
        """The events under way, as they would be if the log ended here."""
        from ejectable.crash.events import event_of

        found = []
        for report in (one for last in self._open.values() for one in (last.within, last) if one is not None):
            was, report.cut = report.cut, True
            found.append(event_of(report, self.source, self.context))
            report.cut = was
        return sorted(found, key=lambda event: event.line)

    def _take_all(self, lines: list[str], events: list[Event]) -> None:
        """Take whole, clean lines. Those with printk's prefix and no other go the short way, which is most of them."""
        number = self.line
        opened = self._open
        for text in lines:
            number += 1
            match = printk(text)
            if match is None:
                self.line = number
                self._take(text, events, dirty=False)
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
                self._take(text, events, dirty=False)
            elif (
                report is not None or opened or self._last is None or body[:3] == "Lin" or "irtio" in body or find(body)
            ):
                self._see(Line(body, match.group(1), caller), events)
            else:
                self.printed += 1
        self.line = number

    def _take(self, text: str, events: list[Event], *, dirty: bool) -> None:
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
        line = read(text)
        if line is None:
            return
        if "\n" in line.text:  # a journal's record may hold several lines
            for piece in line.text.split("\n")[:500]:
                inner = read(piece) or Line("")
                self._see(Line(inner.text, inner.time or line.time, inner.caller or line.caller), events)
            return
        self._see(line, events)

    def _see(self, line: Line, events: list[Event]) -> None:
        text = line.text
        if line.time is not None:
            self.printed += 1
        match = find(text)
        report = self._open.get(line.caller)
        if match is not None:
            self._begin(match, line, report, events)
        elif report is not None:
            self._continue(report, text, events)
        elif text.startswith("---[ end trace ") and self._last is None and not self._orphan(line, events):
            return
        elif self._open and (other := self._borrower(line)) is not None:
            self._continue(other, text, events)
        else:
            self.context.see(text)
            if text.startswith("Linux version "):
                self._close_all(events)
            if self.suspicious is None and speaks_of_a_crash(text):
                self.suspicious = (self.line, text)
        if self._last is None:
            self._recent.append(text)

    def _orphan(self, line: Line, events: list[Event]) -> bool:
        """An end mark whose beginning was lost: what stands before it, as far back as it looks like a report."""
        texts = list(self._recent)
        start = next((at for at, text in enumerate(texts) if ORPHAN.match(text)), None)
        if start is None:
            return False
        report = Report(LOST, line, self.line - (len(texts) - start))
        report.texts = [*texts[start:], line.text]
        report.last, report.died, report.ended, report.lost = self.line, True, True, True
        self._last, self._last_first = report, report.number
        self._emit(report, events)
        return True

    def _borrower(self, line: Line) -> Report | None:
        """Another caller's report that this line belongs to: a backtrace of all CPUs, or an oops without a task."""
        if line.caller.startswith("C") or not line.caller:
            for report in self._open.values():
                if report.all_cpus:
                    return report
        return None

    def _begin(self, match: Match, line: Line, report: Report | None, events: list[Event]) -> None:
        pattern = match.pattern
        if report is not None and pattern.name == report.match.pattern.name and self._inlined(report):
            # scripts/decode_stacktrace.sh and its kin say the head once more for every function that was inlined; the
            # last one has the frame.
            report.match = match
            report.add(line.text, self.line)
            return
        if report is not None and pattern.trap and report.match.pattern.trap and self._same_trap(report, match):
            report.add(line.text, self.line)
            report.gap = 0
            report.died = report.died or "[#" in line.text
            return
        if report is not None and pattern.name == report.match.pattern.name and pattern.name in REPEATED:
            first, further = REPEATED[pattern.name]
            if len(report.texts) < first or line.text.startswith(further):
                report.add(line.text, self.line)
                return
        if pattern.name == "netdevice" and self._aside(match, line, report, events):
            return
        if report is not None and pattern.role == "panic" and self._interrupts(report, line.text):
            # Older kernels panic between the words of a warning and its trace (__warn() in kernel/panic.c).
            report.add(line.text, self.line)
            panic = Report(match, line, self.line)
            panic.follows, panic.ended = report.follows or report.number, True
            self._emit(panic, events)
            return
        new = Report(match, line, self.line)
        if report is not None:
            del self._open[line.caller]
            if pattern.way != "stall" and pattern.role == "head" and self._stalled(report):
                new.within = report  # it went wrong while the stall was told: the trace is the stalled one's
            else:
                self._emit(report, events)
        self._link(new, line.text)
        if len(self._open) >= MOST_OPEN:
            oldest = min(self._open, key=lambda key: self._open[key].last)
            self._emit(self._open.pop(oldest), events)
        self._open[line.caller] = new
        self._last = new

    def _aside(self, match: Match, line: Line, report: Report | None, events: list[Event]) -> bool:
        """Whether a message of one line is dealt with: said again every ten seconds, or in the middle of a report."""
        if match.groups == self._waited_for:
            return True
        self._waited_for = match.groups
        if report is None:
            return False
        aside = Report(match, line, self.line)
        aside.ended = True
        self._emit(aside, events)
        return True

    @staticmethod
    def _inlined(report: Report) -> bool:
        """Whether nothing but heads that name inlined functions was told."""
        return len(report.texts) < 8 and all(text.endswith("[inline]") for text in report.texts)

    @staticmethod
    def _interrupts(report: Report, text: str) -> bool:
        """Whether a panic is the consequence of a report whose trace is still to come."""
        return (
            len(report.texts) < PANIC_WINDOW
            and not any("+0x" in one and one[:1] == " " and one[:3] != " ? " for one in report.texts)
            and report.match.pattern.role != "panic"
            and bool(CONSEQUENCE.search(text))
        )

    @staticmethod
    def _stalled(report: Report) -> bool:
        """Whether a stall was announced, and nothing was told of it yet."""
        return report.match.pattern.way == "stall" and not any("+0x" in one for one in report.texts)

    @staticmethod
    def _same_trap(report: Report, match: Match) -> bool:
        """Whether a die line (or a second head) belongs to the report that is open."""
        if len(report.texts) > TRAP_WINDOW:
            return False
        if match.pattern.role == "die":
            return not report.died
        # `Unable to handle ...` of a user address, `BUG: unable ...` after it: one trap, told twice. An oops that
        # has died and another head: two.
        return not report.died and len(report.texts) <= 6 and match.pattern.kind != "warning"

    def _link(self, new: Report, text: str) -> None:
        last = self._last
        near = last is not None and new.number - last.last < FOLLOW_WINDOW
        if last is not None and near:
            consequence = new.match.pattern.role == "panic" and bool(CONSEQUENCE.search(text))
            nested = not last.ended and last.gap < 3 and new.match.pattern.trap and new.number - last.last <= 2
            if consequence or nested:
                new.follows = self._last_first
                return
        new.orphaned = new.match.pattern.role == "panic" and bool(CAUSED.search(text))
        self._last_first = new.number

    def _continue(self, report: Report, text: str, events: list[Event]) -> None:
        report.texts.append(text)
        report.last = self.line
        if text[:1] == " " or "+0x" in text or "Comm:" in text or "ode: " in text:
            report.gap = 0
        else:
            report.gap += 1
        if text[:3] in ENDINGS or report.gap > GAP or "NMI" in text or len(report.texts) > MOST_LINES:
            self._judge(report, text, events)

    def _judge(self, report: Report, text: str, events: list[Event]) -> None:
        """Whether a report is over with the line that it just got."""
        ruled = text.startswith("=====") and report.match.pattern.kind in RULED and len(report.texts) > 8
        if ruled or text.startswith(LAST_WORDS) or report.gap > GAP or len(report.texts) > MOST_LINES:
            report.ended = True
            self._done(report, events)
        elif "Linux version " in text:
            self._close_all(events)
            self.context.see(text)
        elif "NMI backtrace" in text or "Sending NMI" in text or text.startswith("Sending stop"):
            report.all_cpus = True

    def _done(self, report: Report, events: list[Event]) -> None:
        for caller, one in self._open.items():
            if one is report:
                del self._open[caller]
                break
        self._emit(report, events)

    def _close_all(self, events: list[Event]) -> None:
        """The machine starts again: nothing goes on."""
        for report in sorted(self._open.values(), key=lambda one: one.number):
            report.cut = not report.ended
            self._emit(report, events)
        self._open.clear()
        self._last = self._first_oops = self._waited_for = None

    def _emit(self, report: Report, events: list[Event]) -> None:
        from ejectable.crash.events import event_of  # its patterns are not compiled where nothing happened

        if report.within is not None:
            report.within.texts += report.texts[1:]
            self._emit(report.within, events)
        sight = report.sight
        if sight in self._known_by_sight:
            self.left_out += 1
            return
        event = event_of(report, self.source, self.context)
        self.context.learn(event)
        if event.oops is not None:
            if event.oops > 1 and event.follows is None and self._first_oops is not None:
                event = msgspec.structs.replace(event, follows=self._first_oops)
            if self._first_oops is None:
                self._first_oops = event.line
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
        events.append(event)

    def _promote(self, event: Event) -> bool:
        """Whether an event beyond the bounds is given all the same: the first of its kind that matters."""
        if event.fingerprint in self._promoted or len(self._promoted) >= MOST_EVENTS or not self._matters(event):
            return False
        self._promoted.add(event.fingerprint)
        return True
