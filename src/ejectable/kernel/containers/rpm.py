# SPDX-License-Identifier: GPL-2.0-or-later
"""RPM packages: a lead, a signature, a header of tags, and a packed cpio archive.

Layout: the RPM file format (rpm's docs/manual/format_v4.md and format_header.md). Numbers are big-endian. Nothing
of a package is verified cryptographically: that is the package manager's business.
"""

import struct
import time
from collections.abc import Iterator
from typing import BinaryIO

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import Input, Limits, open_decompressed
from ejectable.kernel.containers import cpio
from ejectable.kernel.containers.archive import Archive, Entry

__all__ = ["MAGIC", "Header", "data_archive", "read_header"]

MAGIC = b"\xed\xab\xee\xdb"
LEAD = 96
HEADER_MAGIC = b"\x8e\xad\xe8"
INTRO = struct.Struct(">3sB4xII")
INDEX = struct.Struct(">IIII")
# rpm itself refuses more (lib/header.c: hdrchkTags, hdrchkData).
MOST_TAGS = 0xFFFF
MOST_DATA = 64 << 20
NAME, VERSION, RELEASE, EPOCH, ARCH, REQUIRES = 1000, 1001, 1002, 1003, 1022, 1049
CHANGELOG_TIME, CHANGELOG_NAME, CHANGELOG_TEXT = 1080, 1081, 1082
INT32, STRING, STRING_ARRAY, I18N = 4, 6, 8, 9


class Header:
    """The tags of a package; a tag that is missing or of another type reads as empty."""

    def __init__(self, index: bytes, store: bytes) -> None:
        self._store = store
        self._entries = {tag: (kind, offset, count) for tag, kind, offset, count in INDEX.iter_unpack(index)}

    def strings(self, tag: int) -> tuple[str, ...]:
        """The strings of a tag."""
        kind, offset, count = self._entries.get(tag, (0, 0, 0))
        if kind not in (STRING, STRING_ARRAY, I18N) or offset >= len(self._store):
            return ()
        # Each takes a byte at least, so a count cannot ask for more than there is.
        raw = self._store[offset:].split(b"\0", min(count, len(self._store) - offset))
        return tuple(piece.decode("utf-8", "replace") for piece in raw[:count])

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The 32-bit numbers of a tag."""
        kind, offset, count = self._entries.get(tag, (0, 0, 0))
        if kind != INT32 or offset + 4 * count > len(self._store):
            return ()
        return struct.unpack_from(f">{count}I", self._store, offset)

    @property
    def name(self) -> str:
        """Of the package."""
        return next(iter(self.strings(NAME)), "")

    @property
    def version(self) -> str:
        """Epoch, version and release as rpm writes them: "2:6.8.0-1"."""
        version = next(iter(self.strings(VERSION)), "")
        release = next(iter(self.strings(RELEASE)), "")
        epoch = "".join(f"{number}:" for number in self.numbers(EPOCH)[:1])
        return f"{epoch}{version}-{release}"

    @property
    def arch(self) -> str:
        """The architecture as rpm names it: "x86_64", "noarch"."""
        return next(iter(self.strings(ARCH)), "")

    @property
    def requires(self) -> tuple[str, ...]:
        """The names of what it requires."""
        return self.strings(REQUIRES)

    @property
    def changelog(self) -> str | None:
        """The changelog as `rpm -q --changelog` prints it; `None` where there is none."""
        entries = zip(
            self.numbers(CHANGELOG_TIME), self.strings(CHANGELOG_NAME), self.strings(CHANGELOG_TEXT), strict=False
        )
        text = "\n\n".join(f"* {_day(when)} {who}\n{what}" for when, who, what in entries)
        return text or None


def _day(seconds: int) -> str:
    return time.strftime("%a %b %d %Y", time.gmtime(seconds))


def read_header(source: Input) -> Header:
    """The main header of a package; raises `BadInput` or `DamagedInput`."""
    with source.open() as file:
        return _up_to_payload(file, source.name)


def data_archive(source: Input, limits: Limits) -> Archive:
    """The files of the package."""
    name = source.name

    def walk() -> Iterator[Entry]:
        with source.open() as file:
            _up_to_payload(file, name)
            if not file.peek(1):  # type: ignore[attr-defined]
                raise DamagedInput("cut off: it has no payload", path=name, offset=file.tell())
            yield from cpio.entries(open_decompressed(file, name=name), name=name, limit=limits.unpacked)

    return Archive(walk, name=name, limits=limits)


def _up_to_payload(file: BinaryIO, name: str) -> Header:
    """Read the header, and leave `file` where the payload begins."""
    lead = file.read(LEAD)
    if lead[:4] != MAGIC:
        raise BadInput("expected an RPM package, found something else", path=name)
    if len(lead) == LEAD and struct.unpack_from(">H", lead, 6)[0] == 1:
        raise BadInput("a source package holds no built kernel", path=name, hint="Give the binary package.")
    _header(file, name)
    file.read(-file.tell() % 8)  # the signature is padded, the header is not
    return _header(file, name)


def _header(file: BinaryIO, name: str) -> Header:
    start = file.tell()
    intro = file.read(INTRO.size)
    if len(intro) < INTRO.size or intro[:3] != HEADER_MAGIC:
        raise DamagedInput("a header section is damaged or cut off", path=name, offset=start)
    _, _, count, size = INTRO.unpack(intro)
    if count > MOST_TAGS or size > MOST_DATA:
        raise DamagedInput(f"a header section of {count} tags and {size} bytes is absurd", path=name, offset=start)
    index = file.read(count * INDEX.size)
    store = file.read(size)
    if len(index) < count * INDEX.size or len(store) < size:
        raise DamagedInput("a header section is cut off", path=name, offset=start)
    return Header(index, store)
