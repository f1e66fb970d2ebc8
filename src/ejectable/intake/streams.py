# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed files read piece by piece, in bounded memory whatever they hold.

Every format of `Compression`, through the end of every concatenated stream, as `zcat` does.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from ejectable.errors import DamagedInput
from ejectable.intake.blocks import LZ4_LEGACY_MAGIC, Pieces, lz4_legacy_blocks, lzo_blocks
from ejectable.intake.compression import LZMA_MEMORY, ZSTD_STEP, ZSTD_WINDOW, Compression, no_memory, sniff

__all__ = ["beyond", "open_decompressed"]

# Packed bytes asked of the file at once, and unpacked bytes asked of a decoder at once.
CHUNK = 1 << 18


def open_decompressed(stream: BinaryIO, *, name: str) -> BinaryIO:
    """Wrap `stream` so that reading it unpacks it as it goes; a plain stream comes back as it is, buffered.

    Bytes after the last stream that are no stream themselves are ignored. Errors in the data surface while
    reading, as `DamagedInput` that names `name`.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    head = buffered.peek(16)[:16]
    compression = sniff(head)
    if compression is Compression.NONE:
        return buffered
    if compression is Compression.LZO:
        pieces = lzo_blocks(buffered.read)
    elif head.startswith(LZ4_LEGACY_MAGIC):
        pieces = lz4_legacy_blocks(buffered.read)
    else:
        pieces = _pieces(buffered, compression)
    return io.BufferedReader(_Unpacker(pieces, compression, name), CHUNK)


def beyond(unpacked: BinaryIO, stream: BinaryIO) -> BinaryIO:
    """What follows in `stream` behind that which `unpacked = open_decompressed(stream)` unpacked, read to its end."""
    raw = unpacked.raw if isinstance(unpacked, io.BufferedReader) else None
    return io.BufferedReader(_Beyond(raw.leftover, stream)) if isinstance(raw, _Unpacker) else stream


class _Beyond(io.RawIOBase):
    """Some bytes that were read already, and the rest of the stream that they were read from."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


class _Unpacker(io.RawIOBase):
    """A raw stream over unpacked pieces. `leftover` is what was read and belongs to no piece, once all were given."""

    def __init__(self, pieces: Pieces, compression: Compression, name: str) -> None:
        self.leftover = b""
        self._pieces = pieces
        self._compression = compression
        self._name = name
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            try:
                piece = next(self._pieces)
            except StopIteration as end:
                self.leftover = end.value or b""
                return 0
            except (ImportError, MemoryError):  # our own fault, or this machine's, and no damage
                raise
            except Exception as error:
                # Each library has an exception tree of its own, some raise plain RuntimeError.
                no_memory(error)
                raise DamagedInput(f"damaged or cut-off {self._compression} stream ({error})", path=self._name) from (
                    error
                )
            self._piece = memoryview(piece)
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size


def _pieces(source: BinaryIO, compression: Compression) -> Pieces:
    """Unpack stream after stream, and give what was read beyond; raises `EOFError` if one is cut off."""
    new = _decoders()[compression]
    packed = b""
    while True:
        decoder = new()
        while not decoder.eof:
            if decoder.needs_input:
                packed = packed or source.read(CHUNK)
                if not packed:
                    raise EOFError("it ends before its end mark")
            yield decoder.decompress(packed, CHUNK)
            packed = b""
        packed = decoder.unused_data or b""  # lz4 says None
        if len(packed) < 16:
            packed += source.read(CHUNK)
        if sniff(packed[:16]) is not compression:
            return packed


def _decoders() -> dict[Compression, Callable[[], Any]]:
    """Per format, what makes an object that has the interface of `bz2.BZ2Decompressor`."""

    def lz4_frame() -> object:
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor()

    return {
        Compression.GZIP: _Gzip,
        Compression.BZIP2: bz2.BZ2Decompressor,
        Compression.LZMA: lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, LZMA_MEMORY),
        Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, LZMA_MEMORY),
        Compression.LZ4: lz4_frame,
        Compression.ZSTD: _Zstd,
    }


class _Gzip:
    """Zlib's object, with the interface of the younger ones."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    def decompress(self, packed: bytes, most: int) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + packed, most)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail


class _Zstd:
    """Zstandard's object, which has no limit on its output, fed so little at a time that it cannot give much."""

    def __init__(self) -> None:
        import zstandard

        self._decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._waiting = memoryview(b"")

    def decompress(self, packed: bytes, most: int) -> bytes:  # noqa: ARG002  (bounded by the step instead)
        if packed:
            self._waiting = memoryview(packed)
        step, self._waiting = self._waiting[:ZSTD_STEP], self._waiting[ZSTD_STEP:]
        return self._decoder.decompress(step)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data + bytes(self._waiting)

    @property
    def needs_input(self) -> bool:
        return not self._waiting
