# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: words in colour, lines that fit, and nothing in them that a terminal would obey."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from ejectable.model import Status

__all__ = ["MARKS", "bullets", "clean", "columns", "paint", "wrap"]

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
# Everything a terminal may obey: C0 without tab and newline, DEL, C1, and what turns the direction of writing round.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` from an untrusted place (a banner, a log, a file name), with control characters made visible."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text)


def paint(text: str, word: str, *, colour: bool) -> str:
    """`text` in the colour of `word`: a status, an `unplug` word, `dim` or `bold`."""
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def wrap(text: str, *, width: int = 80, first: str = "", rest: str | None = None) -> list[str]:
    """`text` in lines of at most `width` columns; long words (paths, hashes) are never broken."""
    return textwrap.wrap(
        clean(text),
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
