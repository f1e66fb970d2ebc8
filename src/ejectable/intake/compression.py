# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed bytes, recognised by their magic and unpacked within a limit.

Every decoder of a format that the kernel's build can produce (scripts/Makefile.lib, `cmd_gzip` ... `cmd_zstd`),
which are also the formats of packages, modules and rotated logs. `decompress` ends at the end of the first
stream and ignores what follows, as kernel images carry trailing bytes.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from enum import StrEnum
from typing import BinaryIO

from ejectable.errors import DamagedInput

__all__ = ["Compression", "decompress", "open_decompressed", "sniff"]

CHUNK = 1 << 18


class Compression(StrEnum):
    """A compressed format, by the name that the kernel's build gives it."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"


# The kernel recognises its own payloads by these (lib/decompress.c, compressed_formats[]); LZ4 has its
# legacy frame there, the modern frame is what `lz4` writes to a file.
MAGICS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x1f\x9e", Compression.GZIP),
    (b"BZh", Compression.BZIP2),
    (b"\x5d\x00\x00", Compression.LZMA),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x89LZO\x00\r\n\x1a\n", Compression.LZO),
    (b"\x02\x21\x4c\x18", Compression.LZ4),
    (b"\x04\x22\x4d\x18", Compression.LZ4),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)


def sniff(head: bytes) -> Compression:
    """Name the format that `head`, the first 16 bytes or more, begins with; `NONE` if it is none of ours."""
    return next((compression for magic, compression in MAGICS if head.startswith(magic)), Compression.NONE)


def decompress(data: bytes | memoryview, limit: int, *, name: str, known: Compression | None = None) -> bytes:
    """Unpack the first stream in `data`, to at most `limit` bytes; data in no known format comes back as is.

    `known` overrides the magic. Raises `DamagedInput`, naming `name`, on a damaged or cut-off stream and on one
    that would unpack to more than `limit` bytes.
    """
    compression = known or sniff(bytes(data[:16]))
    if compression is Compression.NONE:
        if len(data) > limit:
            raise DamagedInput(f"larger than the limit of {limit} bytes", path=name)
        return bytes(data)
    try:
        unpacked = DECODERS[compression](data, limit)
    except _TooLarge:
        raise DamagedInput(
            f"the {compression} stream unpacks to more than the limit of {limit} bytes",
            path=name,
            hint="If the file is to be trusted, raise the limit with --max-unpacked.",
        ) from None
    except Exception as error:
        # Each library has an exception tree of its own, some raise plain RuntimeError or MemoryError.
        raise DamagedInput(f"damaged or cut-off {compression} stream ({error})", path=name) from error
    return unpacked


def open_decompressed(stream: BinaryIO, *, name: str) -> BinaryIO:
    """Wrap `stream` so that reading it unpacks it as it goes, in bounded memory: gzip, bzip2, xz, lzma, zstd, lz4.

    Concatenated streams are read to their end, as `zcat` does. A plain stream comes back unpacked-as-is. Errors
    in the data surface while reading, as `DamagedInput`.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    compression = sniff(buffered.peek(16)[:16])
    if compression is Compression.NONE:
        return buffered
    return io.BufferedReader(_Unpacker(buffered, compression, name), CHUNK)


class _TooLarge(Exception):
    """A decoder produced more than it may."""


def _incremental(new: Callable[[], object]) -> Callable[[bytes | memoryview, int], bytes]:
    """Make a decoder out of a standard library decompressor object, which stops at the end of its stream."""

    def decode(data: bytes | memoryview, limit: int) -> bytes:
        decoder = new()
        # One call with a limit: bz2 and lzma objects keep the rest of the input to themselves.
        unpacked: bytes = decoder.decompress(data, limit + 1)  # type: ignore[attr-defined]
        if len(unpacked) > limit:
            raise _TooLarge
        if not decoder.eof:  # type: ignore[attr-defined]
            raise EOFError("the stream ends before its end mark")
        return unpacked

    return decode


def _lzma_alone(data: bytes | memoryview, limit: int) -> bytes:
    """The legacy format, whose header may leave the size open, so that a kernel's payload has no end mark."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    unpacked = decoder.decompress(data, limit + 1)
    if len(unpacked) > limit:
        raise _TooLarge
    size = int.from_bytes(bytes(data[5:13]), "little")
    if not decoder.eof and len(unpacked) != size:
        raise EOFError("the stream ends before its end mark")
    return unpacked


def _zstd(data: bytes | memoryview, limit: int) -> bytes:
    import zstandard

    # The kernel's build writes windows up to 128 MiB (zstd -22 --ultra); nothing larger is honoured.
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    pieces: list[bytes] = []
    size = 0
    for start in range(0, len(data), CHUNK):
        piece = decoder.decompress(data[start : start + CHUNK])
        size += len(piece)
        if size > limit:
            raise _TooLarge
        pieces.append(piece)
        if decoder.eof:
            return b"".join(pieces)
    raise EOFError("the stream ends before its end mark")


def _lz4(data: bytes | memoryview, limit: int) -> bytes:
    if bytes(data[:4]) == b"\x04\x22\x4d\x18":
        import lz4.frame

        decoder = lz4.frame.LZ4FrameDecompressor()
        unpacked: bytes = decoder.decompress(bytes(data), max_length=limit + 1)
        if len(unpacked) > limit:
            raise _TooLarge
        if not decoder.eof:
            raise EOFError("the stream ends before its end mark")
        return unpacked
    return _lz4_legacy(data, limit)


# The legacy frame (lz4_Frame_format.md, "Legacy frame"): blocks of at most 8 MiB unpacked, each behind its packed
# size, no end mark; in a kernel image what follows the last block is the unpacked size, which reads as a block
# that does not fit.
LZ4_LEGACY_BLOCK = 8 << 20


def _lz4_legacy(data: bytes | memoryview, limit: int) -> bytes:
    import lz4.block

    pieces: list[bytes] = []
    total = 0
    position = 4
    while position + 4 <= len(data):
        packed = int.from_bytes(bytes(data[position : position + 4]), "little")
        if packed == int.from_bytes(b"\x02\x21\x4c\x18", "little"):  # concatenated frames
            position += 4
            continue
        block = bytes(data[position + 4 : position + 4 + packed])
        last = bool(pieces) and len(pieces[-1]) < LZ4_LEGACY_BLOCK
        if packed == 0 or last or (len(data) - position <= 8 and pieces):
            break
        if len(block) < packed:
            # Only the trailing size of an image may look like a block that does not fit.
            if pieces and packed == total:
                break
            raise EOFError("a block is cut off")
        unpacked = lz4.block.decompress(block, uncompressed_size=LZ4_LEGACY_BLOCK)
        total += len(unpacked)
        if total > limit:
            raise _TooLarge
        pieces.append(unpacked)
        position += 4 + packed
    if not pieces:
        raise EOFError("no block in the frame")
    return b"".join(pieces)


def _lzo(data: bytes | memoryview, limit: int) -> bytes:
    """Lzop's container (lib/decompress_unlzo.c names the fields), blocks unpacked by lzallright."""
    import lzallright

    view = memoryview(data)

    def number(position: int, size: int) -> int:
        if position + size > len(view):
            raise EOFError("the header is cut off")
        return int.from_bytes(view[position : position + size], "big")

    position = 9
    version = number(position, 2)
    if version >= 0x0940:
        flags = number(position + 8, 4)
        position += 12
    else:
        flags = number(position + 5, 4)
        position += 9
    if flags & 0x800:  # F_H_FILTER
        position += 4
    position += 8 if version < 0x0940 else 12  # mode and the modification time
    position += 1 + number(position, 1) + 4  # the name and the header's checksum
    codec = lzallright.LZOCompressor()
    checksums_raw = bin(flags & 0x101).count("1")  # F_ADLER32_D, F_CRC32_D
    checksums_packed = bin(flags & 0x202).count("1")  # F_ADLER32_C, F_CRC32_C
    pieces: list[bytes] = []
    total = 0
    while True:
        raw = number(position, 4)
        if raw == 0:
            return b"".join(pieces)
        packed = number(position + 4, 4)
        position += 8 + 4 * checksums_raw + (4 * checksums_packed if packed < raw else 0)
        total += raw
        if total > limit:
            raise _TooLarge
        block = bytes(view[position : position + packed])
        if len(block) < packed or packed > raw:
            raise EOFError("a block is cut off or out of bounds")
        pieces.append(block if packed == raw else codec.decompress(block, raw))
        position += packed


DECODERS: dict[Compression, Callable[[bytes | memoryview, int], bytes]] = {
    Compression.GZIP: lambda data, limit: _gzip(data, limit),
    Compression.BZIP2: _incremental(bz2.BZ2Decompressor),
    Compression.LZMA: _lzma_alone,
    Compression.XZ: _incremental(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    Compression.LZO: _lzo,
    Compression.LZ4: _lz4,
    Compression.ZSTD: _zstd,
}


def _gzip(data: bytes | memoryview, limit: int) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    unpacked = decoder.decompress(data, limit + 1)
    if len(unpacked) > limit:
        raise _TooLarge
    if not decoder.eof:
        raise EOFError("the stream ends before its end mark")
    return unpacked


class _Unpacker(io.RawIOBase):
    """A raw stream that unpacks another one piece by piece, through the end of every concatenated stream."""

    def __init__(self, source: BinaryIO, compression: Compression, name: str) -> None:
        self._source = source
        self._compression = compression
        self._name = name
        self._decoder = _streaming_decoder(compression)
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            try:
                piece = self._step(len(buffer))
            except Exception as error:
                raise DamagedInput(f"damaged {self._compression} stream ({error})", path=self._name) from error
            if piece is None:
                return 0
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)

    def _step(self, most: int) -> bytes | None:
        """At most `most` unpacked bytes; empty for "call again", `None` at the end."""
        decoder = self._decoder
        if decoder.eof:
            rest = self._rest or decoder.unused_data or self._source.read(CHUNK)
            if not rest or sniff(rest[:16]) is not self._compression:
                return None
            self._decoder, self._rest = _streaming_decoder(self._compression), rest
            return b""
        if decoder.needs_input and not self._rest:
            self._rest = self._source.read(CHUNK)
            if not self._rest:
                raise EOFError("it is cut off")
        packed, self._rest = self._rest, b""
        return decoder.decompress(packed, most)


class _StreamingDecoder:
    """What bz2, lzma and lz4.frame decoders have in common, for zlib and zstandard as well."""

    def __init__(self, compression: Compression) -> None:
        self._zlib = zlib.decompressobj(wbits=31) if compression is Compression.GZIP else None
        if self._zlib is None:
            import zstandard

            self._zstd = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._waiting = b""
        self.eof = False
        self.unused_data = b""
        self.needs_input = True

    def decompress(self, packed: bytes, most: int) -> bytes:
        if self._zlib is not None:
            piece = self._zlib.decompress(packed or self._zlib.unconsumed_tail, most)
            self.eof = self._zlib.eof
            self.unused_data = self._zlib.unused_data
            self.needs_input = not self._zlib.unconsumed_tail
            return piece
        # zstandard's object has no output limit: feed it little at a time and hand out what it gave. A zstd
        # block is at most 128 KiB unpacked, and 64 packed bytes begin no more than a score of them.
        if not self._waiting:
            pending, self._pending = (packed or self._pending)[:64], (packed or self._pending)[64:]
            self._waiting = self._zstd.decompress(pending)
            self.eof = self._zstd.eof
            if self.eof:
                self.unused_data = self._zstd.unused_data + self._pending
                self._pending = b""
        elif packed:
            self._pending = packed
        piece, self._waiting = self._waiting[:most], self._waiting[most:]
        if self._waiting:
            self.eof = False
        self.needs_input = not self._pending and not self._waiting
        return piece

    _pending = b""


def _streaming_decoder(compression: Compression) -> "_StreamingDecoder":
    decoder: object
    if compression is Compression.BZIP2:
        decoder = bz2.BZ2Decompressor()
    elif compression in (Compression.LZMA, Compression.XZ):
        decoder = lzma.LZMADecompressor()
    elif compression in (Compression.GZIP, Compression.ZSTD):
        decoder = _StreamingDecoder(compression)
    elif compression is Compression.LZ4:
        import lz4.frame

        decoder = lz4.frame.LZ4FrameDecompressor()
    else:
        raise DamagedInput(f"{compression} streams are not read piece by piece")
    return decoder  # type: ignore[return-value]
