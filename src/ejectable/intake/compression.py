# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed bytes in memory, recognised by their magic and unpacked within a limit.

Every format that the kernel's build can produce (scripts/Makefile.lib, `cmd_gzip` ... `cmd_zstd22_with_size`),
which are also the formats of packages, modules and rotated logs. `decompress` ends at the end of the first
stream and ignores what follows, as kernel images carry trailing bytes. Files too large to be held in memory are
read through `ejectable.intake.streams`.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol

from ejectable.errors import DamagedInput
from ejectable.intake.blocks import LZ4_FRAME_MAGIC, LZ4_LEGACY_MAGIC, LZO_MAGIC, lz4_legacy_blocks, lzo_blocks

__all__ = [
    "LZMA_MEMORY",
    "ZSTD_STEP",
    "ZSTD_WINDOW",
    "Compression",
    "Source",
    "decompress",
    "no_memory",
    "sniff",
]

# The kernel's build asks for dictionaries of at most 128 MiB (zstd -22 --ultra; xz: 32 MiB, scripts/xz_wrap.sh).
# A header that asks for more would make the decoder allocate it at once, before a byte is checked.
ZSTD_WINDOW = 1 << 27
LZMA_MEMORY = 1 << 28
PIECE = 1 << 27


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
    (b"BZh", Compression.BZIP2),
    (b"\x5d\x00\x00", Compression.LZMA),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (LZO_MAGIC, Compression.LZO),
    (LZ4_LEGACY_MAGIC, Compression.LZ4),
    (LZ4_FRAME_MAGIC, Compression.LZ4),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
)


def sniff(head: bytes) -> Compression:
    """Name the format that `head`, the first 16 bytes or more, begins with; `NONE` if it is none of ours."""
    return next((compression for magic, compression in MAGICS if head.startswith(magic)), Compression.NONE)


def decompress(
    data: bytes | memoryview, limit: int, *, name: str, known: Compression | None = None, size: int | None = None
) -> bytes:
    """Unpack the first stream in `data`, to at most `limit` bytes; data in no known format comes back as is.

    `known` overrides the magic. `size` is what it is said to unpack to, which saves time and memory where it is
    true, and is ignored where it is not. Raises `DamagedInput`, naming `name`, on a damaged or cut-off stream and
    on one that would unpack to more than `limit` bytes.
    """
    compression = known or sniff(bytes(data[:16]))
    if compression is Compression.NONE:
        if len(data) > limit:
            raise DamagedInput(f"larger than the limit of {limit} bytes", path=name)
        return bytes(data)
    try:
        unpacked = DECODERS[compression](Source(memoryview(data), limit, size))
    except _TooLarge:
        raise DamagedInput(
            f"the {compression} stream unpacks to more than the limit of {limit} bytes",
            path=name,
            hint="If the file is to be trusted, raise the limit with --max-unpacked.",
        ) from None
    except (ImportError, MemoryError):  # our own fault, or this machine's, and no damage
        raise
    except Exception as error:
        # Each library has an exception tree of its own, some raise plain RuntimeError.
        no_memory(error)
        raise DamagedInput(f"damaged or cut-off {compression} stream ({error})", path=name) from error
    return unpacked


def no_memory(error: Exception) -> None:
    """Raise `MemoryError` where a library says in words of its own that it got no memory."""
    # ZSTD_getErrorString: "Allocation error : not enough memory"; LZ4F_getErrorName: "ERROR_allocation_failed".
    if "llocation error" in str(error) or "allocation_failed" in str(error):
        raise MemoryError from error


class Source:
    """A stream to unpack in memory, the limit on what may come out, and what is said to come out."""

    def __init__(self, data: memoryview, limit: int, size: int | None) -> None:
        self.data = data
        self.limit = limit
        self.size = size if size is not None and 0 < size <= limit else None


class _TooLarge(Exception):
    """A decoder produced more than it may."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: memoryview, max_length: int, /) -> bytes: ...


def _whole(new: Callable[[], _Decoder]) -> Callable[[Source], bytes]:
    """Make a function out of a standard library decompressor object, which stops at the end of its stream."""

    def decode(source: Source) -> bytes:
        decoder = new()
        unpacked = _bounded(decoder, source)
        if not decoder.eof:
            raise EOFError("it ends before its end mark")
        return unpacked

    return decode


def _bounded(decoder: _Decoder, source: Source) -> bytes:
    """All that comes out, or `_TooLarge`. A library collects what one call gives in blocks and joins them in the end,
    which takes twice the memory: so much at a time, and a kernel still comes in one piece, without a copy.
    """
    pieces: list[bytes] = []
    total, data = 0, source.data
    while True:
        piece = decoder.decompress(data, min(PIECE, source.limit + 1 - total))
        total += len(piece)
        if total > source.limit:
            raise _TooLarge
        pieces.append(piece)
        # What zlib did not take it gives back; the others keep it themselves.
        data = memoryview(getattr(decoder, "unconsumed_tail", b""))
        if decoder.eof or len(piece) < PIECE:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _lzma_alone(source: Source) -> bytes:
    """The legacy format. The kernel's build appends the size; xz's writer leaves it open and sets an end mark."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, LZMA_MEMORY)
    unpacked = _bounded(decoder, source)
    promised = int.from_bytes(source.data[5:13], "little")
    if not decoder.eof and len(unpacked) not in (promised, source.size):
        raise EOFError("it ends before its end mark")
    return unpacked


def _zstd(source: Source) -> bytes:
    import zstandard

    frame = zstandard.get_frame_parameters(source.data[:18])
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    if frame.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        if frame.content_size > source.limit:
            raise _TooLarge
        return decoder.decompress(source.data, allow_extra_data=True)
    if source.size is not None:
        try:
            return decoder.decompress(_with_size(source.data, source.size), allow_extra_data=True)
        except zstandard.ZstdError:
            pass  # the size was not true, or the stream is damaged: the long way tells
    return _zstd_of_unknown_size(source, decoder.decompressobj())


def _with_size(data: memoryview, size: int) -> bytes:
    """The same frame with its unpacked size in its header, which lets the library unpack straight to the result.

    The kernel's build pipes into zstd, so the header does not know the size, and the decoder would go through a
    window of 128 MiB and copy everything once more. Layout: RFC 8878, section 3.1.1.1: descriptor (top two bits:
    how wide the size field is, 2 = four bytes), window descriptor, size. No dictionary in ours.
    """
    descriptor = data[4]
    if descriptor & 0b1110_0011:  # a size, a single segment or a dictionary is already there
        return bytes(data)
    return b"".join((data[:4], bytes((descriptor | 0x80,)), data[5:6], struct.pack("<I", size), data[6:]))


def _zstd_of_unknown_size(source: Source, decoder: "_ZstdObject") -> bytes:
    pieces: list[bytes] = []
    total = 0
    for start in range(0, len(source.data), ZSTD_STEP):
        piece = decoder.decompress(source.data[start : start + ZSTD_STEP])
        total += len(piece)
        if total > source.limit:
            raise _TooLarge
        pieces.append(piece)
        if decoder.eof:
            return b"".join(pieces)
    raise EOFError("it ends before its end mark")


# The object of the zstandard library has no limit on its output. A block takes at least 4 bytes and gives at most
# 128 KiB, so this much input gives at most 128 MiB.
ZSTD_STEP = 4096


class _ZstdObject(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: memoryview) -> bytes: ...


def _lz4(source: Source) -> bytes:
    if source.data[:4] == LZ4_FRAME_MAGIC:
        import lz4.frame

        return _whole(lz4.frame.LZ4FrameDecompressor)(source)
    return _joined(lz4_legacy_blocks(_reader(source.data), source.size), source.limit)


def _lzo(source: Source) -> bytes:
    return _joined(lzo_blocks(_reader(source.data)), source.limit)


def _joined(blocks: Iterable[bytes], limit: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    for piece in blocks:
        total += len(piece)
        if total > limit:
            raise _TooLarge
        pieces.append(piece)
    return b"".join(pieces)


def _reader(data: memoryview) -> Callable[[int], memoryview]:
    """A `read(size)` over memory that copies nothing."""
    position = 0

    def read(size: int) -> memoryview:
        nonlocal position
        piece = data[position : position + size]
        position += len(piece)
        return piece

    return read


DECODERS: dict[Compression, Callable[[Source], bytes]] = {
    Compression.GZIP: _whole(lambda: zlib.decompressobj(wbits=31)),
    Compression.BZIP2: _whole(bz2.BZ2Decompressor),
    Compression.LZMA: _lzma_alone,
    Compression.XZ: _whole(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, LZMA_MEMORY)),
    Compression.LZO: _lzo,
    Compression.LZ4: _lz4,
    Compression.ZSTD: _zstd,
}
