# SPDX-License-Identifier: GPL-2.0-or-later
"""One crash report while its lines come in: what belongs together. What stands in it, `parsed_report` reads."""

from ejectable.crash.lines import Line
from ejectable.crash.oops_pattern import Match

__all__ = ["REGISTER_LINES", "Report"]

# How the lines of registers begin, which are a third of every Oops: x86, arm64, arm.
REGISTER_LINES = frozenset(
    (
        *("RAX:", "RBX:", "RDX:", "RBP:", "R10:", "R13:", "FS: ", "CS: ", "CR2:", "DR0:", "DR3:", "PKRU"),
        *(
            "EAX:",
            "ESI:",
            "DS: ",
            *(f"x{number:<2}:" for number in range(30)),
            *(f"r{number:<2}:" for number in range(13)),
        ),
    )
)


class Report:
    """The lines of one report as they come in. Bounded: see `ejectable.crash.reader`."""

    def __init__(self, match: Match, line: Line, number: int) -> None:
        self.match = match
        self.number = number
        self.last = number
        self.time = line.time
        self.caller = line.caller
        self.host = line.host
        self.texts: list[str] = [line.text]
        self.died = match.pattern.role == "die"
        self.ended = False  # its own end mark was seen
        self.cut = False  # the log ended first
        self.final = False  # the log's last line is its own
        self.lost = False  # the log began later
        self.orphaned = False  # a panic that carries out what an earlier report began, which is not in the log
        self.gap = 0
        self.all_cpus = False
        self.within: Report | None = None  # a stall that was being told when this went wrong
        self.follows: int | None = None
        self.kernel: str | None = None
        self.arch: str | None = None

    @property
    def sight(self) -> int:
        """A number for what the report looks like but for registers: reports that share it are the same again."""
        told = [text for text in self.texts[1:] if "+0x" in text]
        return hash((self.match.pattern.name, self.match.groups, *told))

    def add(self, text: str, number: int) -> None:
        """Take one more line, stripped of its prefix."""
        self.texts.append(text)
        self.last = number
