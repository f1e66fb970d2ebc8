# SPDX-License-Identifier: GPL-2.0-or-later
"""The two containers that no library of ours reads: lzop files, and LZ4's legacy frame. Block by block.

`read(size)` gives the next bytes, fewer only at the end of the input.
"""

import struct
from collections.abc import Callable, Generator

__all__ = ["LZ4_FRAME_MAGIC", "LZ4_LEGACY_MAGIC", "LZO_MAGIC", "Pieces", "lz4_legacy_blocks", "lzo_blocks"]

Read = Callable[[int], bytes | memoryview]
# Unpacked bytes, piece by piece; and at the end, what was read and turned out to be none of them.
Pieces = Generator[bytes, None, bytes]

LZO_MAGIC = b"\x89LZO\x00\r\n\x1a\n"
LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
LZ4_FRAME_MAGIC = b"\x04\x22\x4d\x18"

# lz4_Frame_format.md, "Legacy frame": every block but the last unpacks to exactly this much.
LZ4_LEGACY_BLOCK = 8 << 20
LZ4_LEGACY_PACKED = LZ4_LEGACY_BLOCK + LZ4_LEGACY_BLOCK // 255 + 16  # the worst case of incompressible data

# lib/decompress_unlzo.c refuses larger blocks, and lzop writes none.
LZO_BLOCK = 256 << 10


def lz4_legacy_blocks(read: Read, size: int | None = None) -> Pieces:
    """Unpack the blocks of one or more legacy frames; `size`, where known, is that of the whole.

    The frame has no end mark. In a kernel image it is followed by its unpacked size (scripts/Makefile.lib,
    `size_append`), elsewhere by nothing. Raises `EOFError` if a block is cut off.
    """
    import lz4.block

    if bytes(read(4)) != LZ4_LEGACY_MAGIC:
        raise EOFError("no legacy frame")
    total = 0
    full = True
    while size is None or total < size:
        head = bytes(read(4))
        if head == LZ4_LEGACY_MAGIC:  # a frame that follows the frame
            full = True
            continue
        packed = int.from_bytes(head, "little")
        # A block that is not full is the last one. The appended size of an image of just one full block is the
        # only one that could be taken for the packed size of another.
        last = total and (not full or len(head) < 4 or packed > LZ4_LEGACY_PACKED or packed == total)
        if last:
            return head
        block = read(packed) if packed <= LZ4_LEGACY_PACKED else b""
        if not packed or len(block) < packed:
            raise EOFError("a block is cut off")
        unpacked: bytes = lz4.block.decompress(block, uncompressed_size=LZ4_LEGACY_BLOCK)
        total += len(unpacked)
        full = len(unpacked) == LZ4_LEGACY_BLOCK
        yield unpacked
    return b""


class _Exactly:
    """Numbers and blocks from `read`, whole or not at all; the numbers of lzop are big-endian."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def take(self, size: int) -> bytes:
        piece = bytes(self._read(size))
        if len(piece) < size:
            raise EOFError("it ends before its end mark")
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


# Flags of lzop's header (lib/decompress_unlzo.c and lzop's own documentation of its format).
LZO_ADLER32_UNPACKED, LZO_ADLER32_PACKED = 0x1, 0x2
LZO_EXTRA_FIELD, LZO_CRC32_UNPACKED, LZO_CRC32_PACKED, LZO_FILTER = 0x40, 0x100, 0x200, 0x800


def lzo_blocks(read: Read) -> Pieces:
    """Unpack the blocks of an lzop file, up to its end mark; raises `EOFError` if it is cut off."""
    import lzallright

    source = _Exactly(read)
    flags = _lzo_header(source)
    of_unpacked = (flags & LZO_ADLER32_UNPACKED > 0) + (flags & LZO_CRC32_UNPACKED > 0)
    of_packed = (flags & LZO_ADLER32_PACKED > 0) + (flags & LZO_CRC32_PACKED > 0)
    codec = lzallright.LZOCompressor()
    while size := source.number(4):
        packed = source.number(4)
        if size > LZO_BLOCK or packed > size:
            raise EOFError(f"a block of {size} bytes, packed to {packed}, is out of bounds")
        # What did not get smaller is stored as it is, without a checksum of the packed form.
        source.take(4 * of_unpacked + (4 * of_packed if packed < size else 0))
        block = source.take(packed)
        unpacked = block if packed == size else bytes(codec.decompress(block, size))
        if len(unpacked) != size:
            raise EOFError(f"a block unpacks to {len(unpacked)} bytes instead of {size}")
        yield unpacked
    return b""


def _lzo_header(source: _Exactly) -> int:
    """Read up to the first block; the flags."""
    if source.take(len(LZO_MAGIC)) != LZO_MAGIC:
        raise EOFError("no lzop header")
    (version,) = struct.unpack(">H", source.take(2))
    modern = version >= 0x0940
    source.take(4 if modern else 2)  # library's version, version needed to extract
    source.take(2 if modern else 1)  # method and level
    flags = source.number(4)
    if flags & LZO_FILTER:
        source.take(4)
    source.take(12 if modern else 8)  # mode and modification time
    source.take(source.number(1))  # the original name
    source.take(4)  # the header's checksum
    if flags & LZO_EXTRA_FIELD:
        extra = source.number(4)
        if extra > LZO_BLOCK:
            raise EOFError("the header's extra field is out of bounds")
        source.take(extra + 4)
    return flags
