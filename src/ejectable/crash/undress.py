# SPDX-License-Identifier: GPL-2.0-or-later
"""Undoes what was done to a log on its way: encodings, escapes, folding, reversed order, one long line.

Each step looks whether the text is dressed so, and takes that off; a log that is not dressed goes through unchanged.
Steps that change the lines keep the number of the line that each one comes from.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ejectable.crash.fields import fields, from_base64
from ejectable.crash.kernel_log import is_kernel_log

__all__ = ["LARGEST", "Piece", "is_wide", "undress"]

LARGEST = 32 << 20  # bytes of what is undressed: larger logs were written by a machine, line by line
TAGS = re.compile(
    r"</?(?:pre|code|p|div|span|td|tr|li|ul|body|html|table|tbody|blockquote|font|b|i)\b[^<>]{0,300}>", re.IGNORECASE
)
BREAKS = re.compile(r"<br ?/?>", re.IGNORECASE)
MARKDOWN = re.compile(r"\\([_\[\]<>*#`+()~|{}.!-])")
STAMP = re.compile(r"(?:<\d{1,3}>)?\[ {0,9}(\d{1,9}\.\d{3,9})\]")
STAMP_WITHIN = re.compile(r"\[ {0,9}(\d{1,9}\.\d{6})\]")
HEADED = re.compile(r"Call [Tt]race:")
TOP = re.compile(r"<TASK>")
BOTTOM = re.compile(r"</TASK>|---\[ end trace")
OWN_BEGINNING = re.compile(
    r"\s{0,8}(?:\[|<|BUG: |Oops|RIP: |RSP: |R[A-D]X: |R\d\d: |CPU: |Code: |CR2: |CS: |FS: |Call |Modules |Hardware |#PF"
    r"|PGD |Workqueue: |---|(?:\? )?[A-Za-z_][\w.]{2,80}\+0x[0-9a-f]{1,6}/"
    r"|WARNING: |INFO: |Kernel |PKRU|DR\d: |R[SDB][IP]: )"
)
ALIKE = 6  # characters: "Jun  1", "2026-0"
REPORTED = (b"+0x", b"RIP", b"Call", b"Oops", b"BUG", b"panic")  # a log without a report may stay folded
NARROWEST, WIDEST = 20, 250
# A list as Python, Ruby or Perl print it, with its strings in single quotes: `['...', '...']`.
LIST = re.compile(rb"\s{0,80}(?:[\w.]{1,40} {0,4}[=:] {0,4})?[\[(]\s{0,80}['\"]")
BETWEEN = re.compile(rb"(?<!\\)['\"],\s{0,80}['\"]")
PACKED = re.compile(rb"(?:^[A-Za-z0-9+/]{60,76}\r?\n){3,}(?:[A-Za-z0-9+/]{0,75}={0,2})?", re.MULTILINE)
# Blanks and letters of other widths: U+2000 to U+200A, U+3000, U+FF01 to U+FF5E; NFKC makes the usual ones of them.
WIDE = re.compile(rb"\xe2\x80[\x80-\x8a]|\xe3\x80\x80|\xef\xbc[\x81-\xbf]|\xef\xbd[\x80-\x9e]")
MOJIBAKE = (
    ("\u00c2\u00a0", " "),
    ("\u00a0", " "),
    ("\u200b", ""),
    ("\u2028", "\n"),
    ("\u2014[", "---["),
    ("\ufeff", ""),
)


class Piece(msgspec.Struct):
    """One log out of what was given: a field of a document, or all of it."""

    data: bytes
    field: str = ""
    numbers: list[int] | None = None  # of each line, the one of the input that it comes from; None where it is the same


def undress(data: bytes) -> list[Piece]:
    """The logs in what was given; almost always one, and unchanged."""
    data = _decoded(data)
    found = fields(data)
    if found:
        return [_plain(Piece(text, field)) for field, text in found]
    return [_plain(Piece(data))]


def is_wide(sample: bytes) -> bool:
    """Whether it is text of 16 bits a character."""
    return _encoding(sample) is not None


def _encoding(data: bytes) -> str | None:
    if data.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" not in data[:64]:
        return None
    head = data[:4096]
    half = len(head) // 2
    odd, even = head[1::2].count(0), head[::2].count(0)
    if half >= 16 and odd > 0.8 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if half >= 16 and even > 0.8 * half and odd < 0.05 * half else None


def _decoded(data: bytes) -> bytes:
    if encoding := _encoding(data):
        data = data.decode(encoding, "replace").lstrip("\ufeff").encode()
    if WIDE.search(data):
        data = unicodedata.normalize("NFKC", data.decode("utf-8", "replace")).encode()
    if (packed := PACKED.search(data)) and not is_kernel_log(data):
        plain = from_base64(packed.group(0).decode()).encode()
        data = plain if is_kernel_log(plain) else data
    return data


def _plain(piece: Piece) -> Piece:
    data = piece.data
    returns = data.count(b"\r")
    if returns > 3 and returns > 4 * data.count(b"\n"):
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if LIST.match(data) and len(BETWEEN.findall(data)) >= 3:
        data = BETWEEN.sub(b"\n", data[LIST.match(data).end() :])  # type: ignore[union-attr]
    newlines, escaped = data.count(b"\n"), data.count(b"\\n")
    if b"#011" in data or b"#012" in data:  # rsyslog's escapes of a tab and a line's end
        data = data.replace(b"#011", b" ").replace(b"#012", b"\n")
    if escaped >= 5 and escaped > 3 * newlines:
        data = _unescaped(data)
    if any(
        sign in data for sign in (b"&lt;", b"&gt;", b"&#", b"&nbsp;", b"<br", b"<pre", b"<p>", b"<div", b"\\_", b"\\[")
    ):
        data = _without_markup(data)
    if b"\xc2\xa0" in data or b"\xe2\x80" in data or b"\xc3\x82" in data or b"\xef\xbb\xbf" in data:
        text = data.decode("utf-8", "replace")
        for wrong, right in MOJIBAKE:
            text = text.replace(wrong, right)
        data = text.encode()
    piece.data = data
    if not NARROWEST <= len(data) <= LARGEST or not any(sign in data for sign in REPORTED) or not is_kernel_log(data):
        return piece
    lines = _without_ends(data.decode("utf-8", "surrogateescape").split("\n"))
    piece.data = "\n".join(lines).encode("utf-8", "surrogateescape")
    numbers: Sequence[int] = range(1, len(lines) + 1)
    unfolded = _unfolded(lines, numbers)
    lines, numbers = unfolded or (lines, numbers)
    turned = _is_reversed(lines)
    if turned:
        lines, numbers = lines[::-1], numbers[::-1]
    if unfolded or turned:
        piece.data = "\n".join(lines).encode("utf-8", "surrogateescape")
        piece.numbers = list(numbers)
    return piece


def _without_ends(lines: list[str]) -> list[str]:
    """The lines without what a table, a string or a tag puts behind each of them."""
    full = [line for line in lines if line.rstrip("\r")]
    if len(full) < FEWEST:
        return lines
    sign, count = Counter(line[-1] for line in full).most_common(1)[0]
    if sign not in BEHIND or count * 10 < len(full) * 9:
        return lines
    ended = [line for line in full if line[-1] == sign]
    end = ended[0][-LONGEST_END:]
    while not all(line.endswith(end) for line in ended):
        end = end[1:]
    end = end.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_])}")
    return [line.removesuffix(end) for line in lines]


FEWEST, LONGEST_END = 5, 60
BEHIND = frozenset("\"'`|$,;>\\")


def _unescaped(data: bytes) -> bytes:
    r"""Without the escapes of a string that somebody took out of a program: `\n`, `\t`, `\"`, `\u003c`."""
    data = data.replace(b"\\r\\n", b"\n").replace(b"\\n", b"\n").replace(b"\\t", b"\t").replace(b'\\"', b'"')
    return re.sub(rb"\\u00([2-7][0-9a-fA-F])", lambda match: bytes.fromhex(match[1].decode()), data)


def _without_markup(data: bytes) -> bytes:
    """Without what HTML and Markdown make of a log."""
    text = data.decode("utf-8", "surrogateescape")
    if text.count("\n") < len(BREAKS.findall(text)):
        text = text.replace("\n", "")
        text = BREAKS.sub("\n", text)
    else:
        text = BREAKS.sub("", text)
    text = html.unescape(TAGS.sub("", text))
    if "\\_" in text or "\\[" in text:
        text = MARKDOWN.sub(r"\1", text)
    return text.encode("utf-8", "surrogateescape")


def _unfolded(lines: Sequence[str], numbers: Sequence[int]) -> tuple[list[str], list[int]] | None:
    """The lines, if they were folded at a width, as they were before.

    A line was broken if it is as wide as the widest, or if the next word would not have fitted; and what follows it has
    no beginning of its own.
    """
    widths = [len(line) for line in lines]
    width = max(widths)
    if sum(1 for line in lines if len(line) == width and line.endswith(" ")) * 2 > len(lines):
        lines = [line.rstrip() for line in lines]  # a screen, filled with blanks
        widths = [len(line) for line in lines]
    if not NARROWEST <= width <= WIDEST:
        return None
    full = sum(1 for one in widths if one == width)
    stamped = sum(1 for line in lines if STAMP.match(line))
    own = STAMP if stamped * 3 > len(lines) and stamped > 3 else _alike(lines) or OWN_BEGINNING
    by_words = full < 3
    if by_words and (own is not STAMP or width > 140):
        return None
    joined: list[str] = []
    kept: list[int] = []
    last = 0  # the width of the line that came before
    broken = 0
    for line, number in zip(lines, numbers, strict=True):
        fits = last + 1 + len(line.split(" ", 1)[0]) <= width
        goes_on = joined and line and not own.match(line) and (last == width or (by_words and not fits))
        if goes_on:
            joined[-1] += line if last == width or joined[-1].endswith(" ") else " " + line
            broken += 1
        else:
            joined.append(line)
            kept.append(number)
        last = len(line)
    return (joined, kept) if broken >= 2 else None


def _alike(lines: Sequence[str]) -> re.Pattern[str] | None:
    """How most lines begin, a date or what a collector puts in front, or `None` where they do not begin alike."""
    begin, count = max(Counter(line[:ALIKE] for line in lines).items(), key=lambda item: item[1])
    return re.compile(re.escape(begin)) if count * 3 > len(lines) and count > 3 and begin.strip() else None


def _is_reversed(lines: Sequence[str]) -> bool:
    """Whether the newest line comes first: by the stamps, or else because traces end before they begin."""
    stamps = [float(match.group(1)) for line in lines if (match := STAMP_WITHIN.search(line, 0, 240))]
    if len(stamps) > 3:
        down = sum(1 for one, other in pairwise(stamps) if one > other)
        up = sum(1 for one, other in pairwise(stamps) if one < other)
        return down > 4 * (up + 1)
    top = next((at for at, line in enumerate(lines) if TOP.search(line) or HEADED.search(line)), None)
    bottom = next((at for at, line in enumerate(lines) if BOTTOM.search(line)), None)
    frames = [at for at, line in enumerate(lines) if "+0x" in line]
    if top is None or not frames:
        return False
    return (bottom is not None and bottom < top and frames[0] > bottom) or (frames[-1] < top and len(frames) > 2)
