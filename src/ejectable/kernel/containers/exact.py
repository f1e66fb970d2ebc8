# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading an archive front to back: exactly so many bytes or an error, and never more than the limit in all."""

from typing import BinaryIO

from ejectable.errors import DamagedInput

__all__ = ["Exact"]

CHUNK = 1 << 20


class Exact:
    """A stream that cannot seek. `position` in bytes from where it began; `name` is for messages."""

    def __init__(self, stream: BinaryIO, *, name: str, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.name = name
        self.position = 0

    def up_to(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the stream."""
        self._charge(size)
        pieces = []
        while size:
            piece = self._stream.read(min(size, CHUNK))
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            self.position += len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def take(self, size: int, what: str) -> bytes:
        """`size` bytes; raises `DamagedInput`, naming `what`, if there are fewer."""
        start = self.position
        piece = self.up_to(size)
        if len(piece) < size:
            raise DamagedInput(f"cut off in {what}", path=self.name, offset=start)
        return piece

    def skip(self, size: int, what: str) -> None:
        """Pass over `size` bytes; raises `DamagedInput`, naming `what`, if there are fewer."""
        self._charge(size)
        start = self.position
        while size:
            piece = self._stream.read(min(size, CHUNK))
            if not piece:
                raise DamagedInput(f"cut off in {what}", path=self.name, offset=start)
            size -= len(piece)
            self.position += len(piece)

    def _charge(self, size: int) -> None:
        if self.position + size > self._limit:
            raise DamagedInput(
                f"it unpacks to more than the limit of {self._limit} bytes",
                path=self.name,
                hint="If the file is to be trusted, raise the limit with --max-unpacked.",
            )
