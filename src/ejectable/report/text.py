# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: words in colour, lines that fit, and nothing in them that a terminal would obey."""

import os
import re
import textwrap
from collections.abc import Iterable, Sequence

from ejectable.model import Status

__all__ = ["MARKS", "UNPRINTABLE", "bullets", "clean", "columns", "line_for_terminal", "paint", "wrap"]

# SGR parameters (ECMA-48, 8.3.117). A word is never told by its colour alone.
_COLOURS = {
    "affected": "1;31",
    "would_oops": "1;31",
    "unknown": "1;33",
    "mitigated": "1;36",
    "fixed": "1;32",
    "not_affected": "1;32",
    "safe": "32",
    "dim": "2",
    "bold": "1",
}
MARKS = {
    Status.AFFECTED: "AFFECTED",
    Status.UNKNOWN: "UNKNOWN",
    Status.MITIGATED: "MITIGATED",
    Status.FIXED: "FIXED",
    Status.NOT_AFFECTED: "NOT AFFECTED",
}
# What a terminal may obey, or what makes text look like other text: control, format (which turn the direction of
# writing round, or are not seen at all) and surrogate characters, line and paragraph separators: the categories Cc, Cf,
# Cs, Zl and Zp of Unicode 16; a test compares them with Python's own tables.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e007f]"
)
# Stands for ESC [ in what paint() made, and in nothing else: text from outside cannot guess it.
_INK = f"\ue000{os.urandom(8).hex()}"


def clean(text: str) -> str:
    """`text` from outside (a banner, a log, a file name) as one printable line: what is not printable is escaped."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text.expandtabs())


def line_for_terminal(text: str) -> str:
    """One line as it may reach a terminal: printable characters, and the colours that `paint` gave, nothing else.

    Everything that is shown goes through here, at the very end. It does not matter which part of a line came from
    outside: what was not painted by us has no effect.
    """
    return clean(text).replace(_INK, "\x1b[")


def paint(text: str, word: str, *, colour: bool) -> str:
    """`text` in the colour of `word`: a status, an `unplug` word, `dim` or `bold`. For `line_for_terminal`."""
    code = _COLOURS.get(word)
    return f"{_INK}{code}m{text}{_INK}0m" if colour and code else text


def wrap(text: str, *, width: int = 80, first: str = "", rest: str | None = None) -> list[str]:
    """`text` in lines of at most `width` columns; long words (paths, hashes) are never broken."""
    return textwrap.wrap(
        clean(" ".join(text.split())) if "\n" in text else clean(text),
        width=width,
        initial_indent=first,
        subsequent_indent=rest if rest is not None else " " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def bullets(items: Iterable[str], *, width: int = 80, numbered: bool = False) -> list[str]:
    """A list, one item a paragraph: `  1. ...` or `  - ...`."""
    lines: list[str] = []
    for number, item in enumerate(items, 1):
        mark = f"  {number}. " if numbered else "  - "
        lines += wrap(item, width=width, first=mark)
    return lines


def columns(rows: Sequence[Sequence[str]], *, indent: int = 2, gap: int = 2) -> list[str]:
    """A table without lines: each column as wide as its widest cell, the last one free."""
    if not rows:
        return []
    rows = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        (" " * indent + (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
