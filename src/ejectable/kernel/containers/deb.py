# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: an ar archive of control.tar and data.tar, each packed as the packager liked.

Layout: deb(5); ar: the System V "common" format. Members are compressed with gzip, xz, zstd, lzma, bzip2 or not.
"""

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import Input, Limits, open_decompressed
from ejectable.kernel.containers import tar
from ejectable.kernel.containers.archive import Archive, Entry

__all__ = ["MAGIC", "control_fields", "data_archive"]

MAGIC = b"!<arch>\n"
HEADER = 60
MOST_MEMBERS = 64
MOST_CONTROL = 16 << 20


def control_fields(source: Input, limits: Limits) -> dict[str, str]:
    """The fields of the control file that stand on one line: Package, Version, Architecture ..."""
    with source.open() as file:
        member = _member(file, source.name, "control.tar")
        stream = open_decompressed(member, name=member.name)
        for entry in tar.entries(stream, name=member.name, limit=min(MOST_CONTROL, limits.unpacked)):
            if entry.name == "control":
                text = entry.read().decode("utf-8", "replace")
                fields = (line.partition(":") for line in text.splitlines() if line[:1].isalpha())
                return {key: value.strip() for key, colon, value in fields if colon}
    raise DamagedInput("its control archive holds no control file", path=source.name)


def data_archive(source: Input, limits: Limits) -> Archive:
    """The files of the package."""

    def walk() -> Iterator[Entry]:
        with source.open() as file:
            member = _member(file, source.name, "data.tar")
            stream = open_decompressed(member, name=member.name)
            yield from tar.entries(stream, name=member.name, limit=limits.unpacked)

    return Archive(walk, name=source.name, limits=limits)


class _Window(io.RawIOBase):
    """A part of a file, from `start` on, `size` bytes."""

    def __init__(self, file: BinaryIO, start: int, size: int, name: str) -> None:
        self._file = file
        self._start = start
        self._left = size
        self.name = name
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), self._left))
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)


def _member(file: BinaryIO, path: str, prefix: str) -> "_Named":
    """The first ar member whose name begins with `prefix`."""
    if file.read(len(MAGIC)) != MAGIC:
        raise BadInput("expected a Debian package, found something else", path=path)
    position = len(MAGIC)
    end = file.seek(0, os.SEEK_END)
    for _ in range(MOST_MEMBERS):
        file.seek(position)
        header = file.read(HEADER)
        if not header:
            break
        size = header[48:58].strip()
        if len(header) < HEADER or header[58:60] != b"`\n" or not size.isdigit():
            raise DamagedInput("the header of an ar member is damaged or cut off", path=path, offset=position)
        name = header[:16].rstrip(b" /").decode("ascii", "replace")
        start = position + HEADER
        if start + int(size) > end:
            raise DamagedInput(f"cut off: its member {name} ends behind the end of the file", path=path, offset=start)
        if name.startswith(prefix):
            return _Named(_Window(file, start, int(size), f"{path}({name})"))
        position = start + int(size) + int(size) % 2
    raise BadInput(f"an ar archive without {prefix}: no Debian package", path=path)


class _Named(io.BufferedReader):
    """A buffered window that keeps the name for messages."""

    def __init__(self, window: _Window) -> None:
        super().__init__(window, 1 << 18)
        self._window = window

    @property
    def name(self) -> str:
        """File and member."""
        return self._window.name
