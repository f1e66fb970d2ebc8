# SPDX-License-Identifier: GPL-2.0-or-later
"""The reports of one host, put together from its lines: where one begins, what belongs to it, where it is over.

A report begins with a line in which the kernel complains (`oops_patterns`), or, where that line is lost, with whatever
of a report is left: an instruction pointer, registers, the heading of a trace, a frame (`lost`). Reports of several
callers are kept apart. Memory is bounded: a report by `MOST_LINES`, the open ones by `MOST_OPEN`.
"""

import re
from collections.abc import Callable

from ejectable.crash.context import Context
from ejectable.crash.lines import Line
from ejectable.crash.lost import LOST, PROC_STACK, is_benign, is_enough, is_left_of_a_report, is_notable, was_asked_for
from ejectable.crash.oops_pattern import Match
from ejectable.crash.oops_patterns import CAUSED, CONSEQUENCE, find, speaks_of_a_crash
from ejectable.crash.report import Report

__all__ = ["GAP", "MOST_LINES", "Assembly"]

MOST_LINES = 1200  # of one report: NMI backtraces of all CPUs are long
MOST_OPEN = 32  # reports at once, one per caller
GAP = 40  # lines without evidence after which a report is over
GAP_BEFORE_TRACE = 200  # the same, while a trap has told no frame yet
LINGER = 30  # lines behind an end mark within which registers may be said again
PANIC_WINDOW = 12  # lines between a warning and a panic that comes before the warning's trace
TRAP_WINDOW = 25  # lines between a report's head and its die line
FOLLOW_WINDOW = 400  # lines within which a panic belongs to what came before
BENIGN_WINDOW = 80  # lines behind the heading of a dump that somebody asked for

# With what a line begins that may end a report, or says that other CPUs' traces follow.
ENDINGS = frozenset(("---", "===", "Lin", "Reb", "Ker", "Sen"))
# Reports that print a rule of `=` behind them.
RULED = ("kasan", "kmsan", "kcsan", "ubsan")
# With these a report is over: its own end mark, or the machine's.
LAST_WORDS = ("---[ end ", "Rebooting in ", "Kernel Offset: ")
# Reports of which further lines look like a beginning: within how many lines, or with which words.
REPEATED = {"leak": (3, ("unreferenced ",)), "slab": (1, ("INFO: ",)), "rcu-stall": (12, ())}
# A line of a stack dump: `1ac0: 80275518 802a0f18 ...` (arm), `Stack: (0xec3d1ac8 to 0xec3d2000)`.
DUMPED = re.compile(
    r"(?:[0-9a-f]{4,16}: )?[0-9a-f]{8}(?:[0-9a-f]{8})?(?: [0-9a-f]{8}(?:[0-9a-f]{8})?){0,7} ?\Z"
    r"|(?:Raw s|Exception s|S)tack[ :(]"
)
# What oops_end() says again behind an end mark before it panics, so that it stays on the screen.
SAID_AGAIN = re.compile(r"RIP: |Code: |RSP: |EFLAGS|PC is at|pc : |[A-Z][A-Z0-9]{1,2}: {1,2}[0-9a-f]{4}|PKRU: |EIP: ")


class Assembly:
    """The reports of one host. What is complete goes to `emit`, the first one first."""

    def __init__(self, emit: Callable[["Assembly", Report], None]) -> None:
        self.context = Context()
        self.open: dict[str, Report] = {}
        self.last: Report | None = None  # the report that began last, open or not
        self.first_oops: int | None = None  # the line of this boot's first
        self.suspicious: tuple[int, str] | None = None  # the first line with words of a report that is in none
        self._hand_out = emit
        self._line = 0
        self._ended: dict[str, Report] = {}  # by caller, while their registers may be said again
        self._let_go_at = 0  # the line behind which the last that has ended is handed out
        self._waited_for: tuple[str | None, ...] | None = None  # the network device that does not become free
        self._last_first: int | None = None  # the first of the chain that `last` belongs to
        self._benign = 0  # up to which line a trace is one that somebody asked for

    @property
    def unfinished(self) -> list[Report]:
        """The reports that are open, or may still get a line."""
        reports = (*self.open.values(), *self._ended.values())
        found = [one for last in reports for one in (last.within, last) if one is not None]
        return [one for one in found if not one.lost or is_enough(one)]

    def see(self, line: Line, number: int) -> None:
        """Take a line of this host."""
        self._line = number
        text = line.text
        match = find(text)
        report = self.open.get(line.caller)
        again = bool(self._ended) and match is None and report is None and self._is_said_again(line)
        if self._ended and not again and (match is not None or number > self._let_go_at):
            self._let_go(line, begins=match is not None)
        if match is not None:
            self._begin(match, line, report)
        elif report is not None:
            self._continue(report, text)
        elif again:
            self._ended[line.caller].texts.append(text)
        elif self.open and (other := self._borrower(line)) is not None:
            self._continue(other, text)
        elif number > self._benign and is_left_of_a_report(text):
            self._open_lost(line)
        else:
            self._outside(text)

    def close(self, *, over: bool = True) -> None:
        """The machine starts again, or the log is `over`: nothing goes on."""
        for report in sorted((*self.open.values(), *self._ended.values()), key=lambda one: one.number):
            report.cut = not report.ended
            report.final = over and report.last == self._line
            self._emit(report)
        self.open.clear()
        self._ended.clear()
        if not over:
            self.last = self.first_oops = self._waited_for = None

    def _outside(self, text: str) -> None:
        """A line that belongs to no report."""
        self.context.see(text)
        if text.startswith("Linux version "):
            self.close(over=False)
        elif not is_notable(text):
            return
        elif is_benign(text):
            self._benign = self._line + BENIGN_WINDOW
        elif self.last is None and self.suspicious is None and self._line > self._benign and speaks_of_a_crash(text):
            self.suspicious = (self._line, text)

    def _is_said_again(self, line: Line) -> bool:
        report = self._ended.get(line.caller)
        return report is not None and report.match.pattern.trap and SAID_AGAIN.match(line.text) is not None

    def _let_go(self, line: Line, *, begins: bool) -> None:
        """Hand out what has ended and is not said again: the next one begins, or it was long ago."""
        for caller, report in list(self._ended.items()):
            if (begins and caller == line.caller) or self._line - report.last > LINGER:
                self._emit(self._ended.pop(caller))

    def _open_lost(self, line: Line) -> None:
        match = PROC_STACK if line.text.lstrip().startswith("[<0>]") else LOST
        report = Report(match, line, self._line)
        report.lost = match is LOST
        self._add(line.caller, report)

    def _add(self, caller: str, report: Report) -> None:
        if len(self.open) >= MOST_OPEN:
            oldest = min(self.open, key=lambda key: self.open[key].last)
            self._emit(self.open.pop(oldest))
        self.open[caller] = report
        self._continue_or_end(report, report.texts[0])

    def _borrower(self, line: Line) -> Report | None:
        """Another caller's report that this line belongs to: a backtrace of all CPUs, or an oops without a task."""
        if line.caller.startswith("C") or not line.caller:
            for report in self.open.values():
                if report.all_cpus:
                    return report
        return None

    def _begin(self, match: Match, line: Line, report: Report | None) -> None:
        pattern = match.pattern
        if report is not None and self._goes_on(report, match, line):
            return
        if pattern.name == "netdevice" and self._aside(match, line, report):
            return
        if report is not None and pattern.role == "panic" and self._interrupts(report, line.text):
            # Older kernels panic between the words of a warning and its trace (__warn() in kernel/panic.c).
            report.add(line.text, self._line)
            panic = Report(match, line, self._line)
            panic.follows, panic.ended = report.follows or report.number, True
            self._emit(panic)
            return
        new = Report(match, line, self._line)
        if report is not None:
            del self.open[line.caller]
            if pattern.way != "stall" and pattern.role == "head" and self._stalled(report):
                new.within = report  # it went wrong while the stall was told: the trace is the stalled one's
            else:
                self._emit(report)
        self._link(new, line.text)
        self._add(line.caller, new)
        self.last = new

    def _goes_on(self, report: Report, match: Match, line: Line) -> bool:
        """Whether a line that may begin a report is the open one's; it is added then."""
        pattern, own = match.pattern, report.match.pattern
        if pattern.name == own.name and self._inlined(report):
            # scripts/decode_stacktrace.sh and its kin say the head once more for every function that was inlined; the
            # last one has the frame.
            report.match = match
            report.add(line.text, self._line)
            return True
        # Its first line is lost, or has a character wrong. Behind a trace, the next report begins.
        unclear = (report.match is LOST and not _has_frames(report)) or own.name == "any-bug"
        if pattern.trap and (own.trap or unclear) and self._same_trap(report, match):
            report.add(line.text, self._line)
            report.gap = 0
            report.died = report.died or "[#" in line.text
            if unclear:
                report.match = match
            return True
        if pattern.name == own.name and pattern.name in REPEATED:
            first, further = REPEATED[pattern.name]
            if len(report.texts) < first or line.text.startswith(further):
                report.add(line.text, self._line)
                return True
        if pattern.name == "task-state" and (own.way == "stall" or (own.way == "hang" and not _has_frames(report))):
            report.add(line.text, self._line)  # its own: hung_task and RCU show the task that they complain of
            return True
        if pattern.name == "hung-owner" and own.way == "hang":
            report.add(line.text, self._line)
            return True
        if pattern.name == "panic-overflow" and own.name == "stack":
            report.add(line.text, self._line)  # arm64 says it once more when it gives up
            return True
        return False

    def _aside(self, match: Match, line: Line, report: Report | None) -> bool:
        """Whether a message of one line is dealt with: said again every ten seconds, or in the middle of a report."""
        if match.groups == self._waited_for:
            return True
        self._waited_for = match.groups
        if report is None:
            return False
        aside = Report(match, line, self._line)
        aside.ended = True
        self._emit(aside)
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
        last = self.last
        near = last is not None and new.number - last.last < FOLLOW_WINDOW
        if last is not None and near:
            consequence = new.match.pattern.role == "panic" and bool(CONSEQUENCE.search(text))
            nested = not last.ended and last.gap < 3 and new.match.pattern.trap and new.number - last.last <= 2
            if consequence or nested:
                new.follows = self._last_first
                return
        new.orphaned = new.match.pattern.role == "panic" and bool(CAUSED.search(text))
        self._last_first = new.number

    def _continue(self, report: Report, text: str) -> None:
        report.texts.append(text)
        report.last = self._line
        self._continue_or_end(report, text)

    def _continue_or_end(self, report: Report, text: str) -> None:
        if text[:1] == " " or "+0x" in text or "Comm:" in text or "ode: " in text:
            report.gap = 0
        else:
            report.gap += 1
        if text[:3] in ENDINGS or report.gap > GAP or "NMI" in text or len(report.texts) > MOST_LINES:
            self._judge(report, text)

    def _judge(self, report: Report, text: str) -> None:
        """Whether a report is over with the line that it just got."""
        if report.gap > GAP and (DUMPED.match(text) or DUMPED.match(report.texts[-GAP // 2])):
            report.gap = 0  # a stack, dumped in hundreds of lines
        waits = report.match.pattern.trap and report.gap < GAP_BEFORE_TRACE and not _has_frames(report)
        ruled = text.startswith("=====") and report.match.pattern.kind in RULED and len(report.texts) > 8
        late = (report.gap > GAP and not waits) or len(report.texts) > MOST_LINES
        if ruled or text.startswith(LAST_WORDS) or late:
            report.ended = True
            self._done(report)
        elif "Linux version " in text:
            self.close(over=False)
            self.context.see(text)
        elif "NMI backtrace" in text or "Sending NMI" in text or text.startswith("Sending stop"):
            report.all_cpus = True

    def _done(self, report: Report) -> None:
        caller = next((caller for caller, one in self.open.items() if one is report), None)
        if caller is not None:
            del self.open[caller]
        if caller is not None and report.match.pattern.trap:
            if caller in self._ended:
                self._emit(self._ended.pop(caller))
            self._ended[caller] = report
            self._let_go_at = self._line + LINGER
        else:
            self._emit(report)

    def _emit(self, report: Report) -> None:
        if report.within is not None:
            report.within.texts += report.texts[1:]
            self._emit(report.within)
        if (report.lost or report.match.pattern.name == "task-state") and not is_enough(report):
            if self.suspicious is None and report.lost and not was_asked_for(report):
                self.suspicious = (report.number, report.texts[0])
            return
        if report.lost and (self.last is None or self.last.number < report.number):
            self.last, self._last_first = report, report.number
        self._hand_out(self, report)


def _has_frames(report: Report) -> bool:
    return any("+0x" in text for text in report.texts[-60:])
