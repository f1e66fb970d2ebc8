# SPDX-License-Identifier: GPL-2.0-or-later
"""Tar archives from a stream, with bounds that Python's `tarfile` does not have.

Layout: POSIX pax interchange format ("ustar"), and GNU's entries for long names ("L") and base-256 sizes.
"""

from collections.abc import Iterator
from typing import BinaryIO

from ejectable.errors import DamagedInput
from ejectable.kernel.containers.archive import Entry, clean_name, entry_of
from ejectable.kernel.containers.exact import Exact

__all__ = ["entries"]

BLOCK = 512
MOST_EXTENDED = 1 << 20  # of a pax header or a long name
MOST_DIGITS = 20  # of a 64-bit number
REGULAR = (b"0", b"\0", b"7")


def entries(stream: BinaryIO, *, name: str, limit: int) -> Iterator[Entry]:
    """The regular files, in order; raises `DamagedInput` where the archive is broken, cut off or too large."""
    source = Exact(stream, name=name, limit=limit)
    extended: dict[str, str] = {}
    while True:
        start = source.position
        header = source.up_to(BLOCK)
        if not header.strip(b"\0") and len(header) in (0, BLOCK):
            if start == 0:
                raise DamagedInput("an empty archive", path=name)
            if not header:
                raise DamagedInput("cut off: the archive has no end mark", path=name, offset=start)
            return
        if len(header) < BLOCK or _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 32:
            raise DamagedInput("the header of a tar member is damaged", path=name, offset=start)
        size = _number(header[124:136])
        kind = header[156:157]
        if size < 0:
            raise DamagedInput("the size of a tar member is no number", path=name, offset=start)
        if kind in (b"x", b"g", b"L", b"K"):
            if size > MOST_EXTENDED:
                raise DamagedInput("an extended tar header is absurdly long", path=name, offset=start)
            content = source.take(size, "an extended tar header")
            source.skip(-size % BLOCK, "the padding of a tar header")
            if kind == b"x":
                extended |= _pax(content)
            elif kind == b"L":
                extended["path"] = content.rstrip(b"\0").decode("utf-8", "replace")
            continue
        if "size" in extended:
            size = _decimal(extended["size"])
            if size < 0:
                raise DamagedInput("the size of a tar member is no number", path=name, offset=start)
        member = clean_name(extended.get("path") or _ustar_name(header))
        extended = {}
        # Links and devices have no content, whatever their size field says.
        size = size if kind in REGULAR else 0
        entry, rest = entry_of(source, member, size)
        if kind in REGULAR:
            yield entry
        rest()
        source.skip(-size % BLOCK, "the padding of a tar member")


def _number(field: bytes) -> int:
    """An octal number, or base-256 where the first bit is set; -1 if it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1


def _decimal(text: str) -> int:
    """A number of pax; -1 if it is none. Python itself refuses numbers of thousands of digits, with an exception."""
    return int(text) if text.isdecimal() and len(text) < MOST_DIGITS else -1


def _ustar_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    return name.decode("utf-8", "replace")


def _pax(content: bytes) -> dict[str, str]:
    """Records of the form "LENGTH KEY=VALUE", each on a line of its own."""
    found = {}
    while content:
        digits, space, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not space or not 0 < length <= len(content):
            break
        key, _, value = content[len(digits) + 1 : length - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        content = content[length:]
    return found
