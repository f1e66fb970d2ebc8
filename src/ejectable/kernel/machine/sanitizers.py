# SPDX-License-Identifier: GPL-2.0-or-later
"""The shadow memory of KASAN and KMSAN: every byte is accessible and initialised in the machine."""

from collections.abc import Iterator

from ejectable.model import Arch

__all__ = ["originals", "returns_shadow"]

MASK = (1 << 64) - 1
TAGGED = 0xFF << 56
# KASAN_SHADOW_OFFSET, and how many bits of an address are lost on the way: generic KASAN 3, software tags 4.
# arch/x86/Kconfig; arch/arm64/Kconfig, by the number of bits of an address (52 and 48, 47, 42, 39, 36).
SHADOWS: dict[Arch, tuple[tuple[int, int], ...]] = {
    "x86_64": ((0xDFFF_FC00_0000_0000, 3),),
    "aarch64": (
        (0xDFFF_8000_0000_0000, 3), (0xDFFF_C000_0000_0000, 3), (0xDFFF_FE00_0000_0000, 3), (0xDFFF_FFC0_0000_0000, 3),
        (0xDFFF_FFF8_0000_0000, 3), (0xEFFF_8000_0000_0000, 4), (0xEFFF_C000_0000_0000, 4), (0xEFFF_FE00_0000_0000, 4),
        (0xEFFF_FFC0_0000_0000, 4), (0xEFFF_FFF8_0000_0000, 4),
    ),
}  # fmt: skip


def originals(arch: Arch, page: int, size: int) -> Iterator[range]:
    """The addresses that a page may be the shadow of, for each place where a kernel may keep its shadow."""
    for offset, scale in SHADOWS[arch]:
        start = (page - offset << scale) & MASK
        yield range(start, start + (size << scale))
        if scale == 4 and start >= TAGGED:  # the tag is taken for ones on the way, whatever it was
            yield range(start - TAGGED, start - TAGGED + (size << scale))


def returns_shadow(name: str) -> bool:
    """Whether a call of this function gives two pointers to shadow memory (mm/kmsan/instrumentation.c)."""
    return name.startswith("__msan_") and ("metadata_ptr" in name or "context_state" in name)
