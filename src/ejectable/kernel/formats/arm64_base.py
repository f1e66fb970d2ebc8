# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a flat arm64 image wants to be in virtual memory, told by its own relocations, and those applied.

A relocatable arm64 kernel (CONFIG_RELOCATABLE, which KASLR needs) carries its dynamic relocations, because it
moves itself at boot (arch/arm64/kernel/pi/relocate.c): .rela.dyn, an array of `struct elf64_rela` of type
R_AARCH64_RELATIVE, each with an absolute link-time address and an absolute link-time value. The words they point
to are zero in the file (the linker is told --no-apply-dynamic-relocs), so that every pointer in the kernel's data
would be null if they were not applied here. A kernel linked with RELR instead (CONFIG_RELR) has its values in
place.
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec

from ejectable.kernel.program import Segment, searchable

__all__ = ["relocated", "relocated_segments"]

R_AARCH64_RELATIVE = 0x403
INFO = struct.pack("<Q", R_AARCH64_RELATIVE)
ENTRY = 24
WORD = 8
# Fewer are no relocation section: real kernels have 100,000 and more, the smallest configuration some 10,000.
FEWEST = 256
CHUNK = 4096
SAMPLES = 512
KERNEL_HALF = 1 << 63
PAGE = 4096


class _Relocations(msgspec.Struct, frozen=True):
    """The run of relative relocations: link-time addresses of words, and the values that belong there."""

    addresses: list[int]
    values: list[int]


def relocated(raw: memoryview, base: int | None = None) -> tuple[memoryview, int | None]:
    """The image with its relocations applied, and the virtual address of its first byte.

    `base` is that address where it is known from elsewhere. As it was, and `base`, where there are no relocations
    or they do not fit the image.
    """
    for found in _runs(raw):
        # Nothing lies before _text, the image's first byte. It most often is the target of relocations itself; else
        # _stext is the lowest, and _text is 64 KiB before it, at a multiple of that or of 2 MiB.
        lowest = min((value for value in found.values if value >= KERNEL_HALF), default=0)
        rounded = (lowest, lowest & -(1 << 16), lowest - 1 & -(1 << 16), lowest & -(1 << 21))
        for start in rounded if base is None else (base,):
            last = start + len(raw) - WORD
            inside = not start % PAGE and all(start <= address <= last for address in found.addresses)
            if inside and _fits(raw, found, start):
                return _applied(raw, found, start), start
    return raw, base


def _fits(raw: memoryview, found: _Relocations, start: int) -> bool:
    """Whether the words to be relocated are empty, or hold their values, if the image's first byte is at `start`."""
    step = max(len(found.addresses) // SAMPLES, 1)
    sample = list(zip(found.addresses[::step], found.values[::step], strict=True))
    fitting = sum(
        int.from_bytes(raw[address - start : address - start + WORD], "little") in (0, value)
        for address, value in sample
    )
    return 10 * fitting >= 9 * len(sample)


def relocated_segments(raw: memoryview, segments: Sequence[Segment]) -> list[Segment]:
    """The segments of an arm64 vmlinux, an ELF file, with its relocations applied; the same words are zero there."""
    for found in _runs(raw):
        inside = [
            any(segment.address <= address <= segment.address + len(segment.data) - WORD for segment in segments)
            for address in found.addresses[:: max(len(found.addresses) // 64, 1)]
        ]
        if all(inside):
            return [
                msgspec.structs.replace(segment, data=_applied(segment.data, found, segment.address))
                for segment in segments
            ]
    return list(segments)


def _applied(data: memoryview, found: _Relocations, base: int) -> memoryview:
    """A copy of `data`, which stands at `base`, with the relocations that lie in it."""
    image = bytearray(data)
    words = memoryview(image)[: len(image) // WORD * WORD].cast("Q")
    last = base + len(image) - WORD
    for address, value in zip(found.addresses, found.values, strict=True):
        if not base <= address <= last:
            continue
        if (address - base) & 7:
            struct.pack_into("<Q", image, address - base, value)
        else:
            words[(address - base) >> 3] = value
    words.release()
    return memoryview(image).toreadonly()


def _runs(raw: memoryview) -> Iterator[_Relocations]:
    """Every run of entries that is long enough, in the order of the file."""
    haystack = searchable(raw)
    position = haystack.find(INFO)
    while position >= 0:
        start = position - WORD
        # Two words further on stands the next entry's type; a stray match is passed over quickly.
        if start < 0 or start % WORD or haystack[position + ENTRY : position + ENTRY + WORD] != INFO:
            position = haystack.find(INFO, position + 1)
            continue
        words = raw[start : start + (len(raw) - start) // ENTRY * ENTRY].cast("Q")
        count = _length(words[1::3])
        if count >= FEWEST:
            yield _Relocations(words[0 : 3 * count : 3].tolist(), words[2 : 3 * count : 3].tolist())
        position = haystack.find(INFO, start + ENTRY * count + WORD)


def _length(types: memoryview) -> int:
    """How many entries in a row are relative relocations."""
    whole = [R_AARCH64_RELATIVE] * CHUNK
    count = 0
    while True:
        piece = types[count : count + CHUNK].tolist()
        if piece == whole:
            count += CHUNK
            continue
        return count + next((i for i, kind in enumerate(piece) if kind != R_AARCH64_RELATIVE), len(piece))
