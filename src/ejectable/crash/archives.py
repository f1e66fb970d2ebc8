# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives of logs: what a support tool collected, or somebody packed. Read as a stream, nothing is written to disk."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from ejectable.errors import DamagedInput
from ejectable.intake import Limits

__all__ = ["is_tar", "is_zip", "tar_members", "zip_members"]

MOST_MEMBERS = 100_000
LARGEST_READ = 16 << 20  # of what is no member's content: a header


def is_tar(head: bytes) -> bool:
    """Whether 512 bytes are the header of a tar member."""
    return head[257:262] == b"ustar"


def is_zip(head: bytes) -> bool:
    """Whether a file begins as a zip archive."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def tar_members(stream: BinaryIO, name: str, limits: Limits) -> Iterator[tuple[str, BinaryIO]]:
    """Each regular file of a tar archive, its name and its content, which must be read before the next is asked for.

    Raises `DamagedInput` where the archive is broken, cut off or too large.
    """
    bounded = _Bounded(stream, name, limits.unpacked)
    try:
        with tarfile.open(fileobj=bounded, mode="r|", errorlevel=0) as archive:
            for count, member in enumerate(archive):
                if count >= MOST_MEMBERS:
                    raise DamagedInput(f"more than {MOST_MEMBERS} members", path=name)
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, io.BufferedReader(content)  # type: ignore[type-var]
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DamagedInput(f"a damaged or cut off tar archive ({error})", path=name) from error


def zip_members(file: BinaryIO, name: str, limits: Limits) -> Iterator[tuple[str, BinaryIO]]:
    """The same of a zip archive, from a file that can seek."""
    left = limits.unpacked
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist()[:MOST_MEMBERS]:
                left -= member.file_size
                if left < 0:
                    raise DamagedInput(f"unpacks to more than the limit of {limits.unpacked} bytes", path=name)
                if member.is_dir() or member.flag_bits & 1:  # encrypted
                    continue
                with archive.open(member) as content:
                    yield member.filename, content  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise DamagedInput(f"a damaged or cut off zip archive ({error})", path=name) from error


class _Bounded(io.RawIOBase):
    """A stream of which no more than a bound is read, in all and at once."""

    def __init__(self, stream: BinaryIO, name: str, limit: int) -> None:
        self._stream = stream
        self._name = name
        self._left = limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > LARGEST_READ:
            raise DamagedInput("a header in the archive is absurdly long", path=self._name)
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DamagedInput("unpacks to more than the limit; the rest was not read", path=self._name)
        return data
