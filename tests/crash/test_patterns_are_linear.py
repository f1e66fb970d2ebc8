# SPDX-License-Identifier: GPL-2.0-or-later
"""No line can hold up the reader: every pattern of the room takes time that grows with the line, on its worst line.

The worst line of a pattern is searched for: repetitions of pieces of the pattern itself and of what such lines are made
of, behind a beginning that the pattern wants. The search is small and the same every time.
"""

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ejectable.crash
from ejectable.crash import blame, frames
from ejectable.crash.oops_pattern import OopsPattern
from ejectable.crash.reader import LONGEST_LINE

__all__: list[str] = []

SHORT, LARGE = 300, 1 << 20
# Of these only so many characters are looked at: functions' names, and lines that show a frame.
LOOKED_AT = {"ignored_frames": blame.LONGEST, "blame": blame.LONGEST, "cause": blame.LONGEST, "frames": frames.LONGEST}
UNITS = (
    "1",
    "a",
    "A",
    " ",
    "_",
    "-",
    "[",
    "(",
    "<",
    "\t",
    "a ",
    "1,",
    "0x1",
    "+0x1/0x1 ",
    "[<1>] ",
    ": ",
    '"',
    "{",
    "in ",
    "at ",
)
PIECES = re.compile(r"[\0()\[\]|*+?^$]")
ESCAPES = re.compile(r"\\[swdbAZSWD]|\{\d+,?\d*\}|\(\?[:=!<]*")


def _patterns() -> dict[str, tuple[str, re.Pattern[Any]]]:
    """Every compiled pattern in the modules of the room, by where it stands."""
    found: dict[str, tuple[str, re.Pattern[Any]]] = {}

    def walk(name: str, value: object) -> Iterator[tuple[str, re.Pattern[Any]]]:
        if isinstance(value, re.Pattern):
            yield name, value
        elif isinstance(value, OopsPattern):
            yield f"{name}.{value.name}", value.regex
        elif isinstance(value, tuple | list):
            for at, one in enumerate(value):
                yield from walk(f"{name}[{at}]", one)
        elif isinstance(value, dict):
            for key, one in value.items():
                yield from walk(f"{name}[{key}]", one)

    for module in pkgutil.iter_modules(ejectable.crash.__path__):
        for name, value in vars(importlib.import_module(f"ejectable.crash.{module.name}")).items():
            if not name.startswith("__"):
                for where, pattern in walk(f"{module.name}.{name}", value):
                    found.setdefault(where, (module.name, pattern))
    return found


PATTERNS = _patterns()


def _took(pattern: re.Pattern[Any], line: str, rounds: int = 1) -> float:
    """Seconds of this processor; the best of some rounds, as a busy machine has slow ones."""
    text: Any = line.encode() if isinstance(pattern.pattern, bytes) else line
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        pattern.search(text)
        best = min(best, time.process_time() - start)
    return best


def _worst(pattern: re.Pattern[Any], length: int) -> tuple[str, str]:
    """The beginning and the unit of the line of so many characters that takes the longest."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    pieces = [piece.replace("\\", "") for piece in PIECES.split(ESCAPES.sub("\0", source))]
    pieces = list(dict.fromkeys(piece for piece in pieces if 1 < len(piece) < 40))[:6]
    lines = [(begin, unit) for begin in ("", *pieces) for unit in (*UNITS, *pieces)]
    return max(lines, key=lambda one: _took(pattern, (one[0] + one[1] * (length // len(one[1]) + 1))[:length]))


@pytest.mark.parametrize("where", PATTERNS)
def test_the_time_grows_with_the_line_and_no_faster(where: str) -> None:
    module, pattern = PATTERNS[where]
    longest = LOOKED_AT.get(module, LONGEST_LINE)
    begin, unit = _worst(pattern, min(SHORT, longest))
    line = (begin + unit * (longest // len(unit) + 1))[:longest]
    took = _took(pattern, line, 3)
    assert took < 0.15, (begin, unit)
    if longest == LONGEST_LINE:
        # As many such lines as make a mebibyte: still so fast that a log of them is read.
        assert took * (LARGE / longest) < 4.0, (begin, unit)


def test_there_are_patterns_to_be_timed() -> None:
    assert len(PATTERNS) > 200
