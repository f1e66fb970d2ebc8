# SPDX-License-Identifier: GPL-2.0-or-later
"""What every format's reader returns: the name of the format, and the way to the kernel in it."""

from collections.abc import Callable

import msgspec

from ejectable.intake import Compression, Limits
from ejectable.model import Arch

__all__ = ["Packed"]


class Packed(msgspec.Struct, frozen=True):
    """A kernel image as it lies in a file, not unpacked yet."""

    format: str  # "bzImage", "zboot", "Image", "vmlinux", "module"
    arch: Arch
    compression: Compression
    version: str | None  # what follows "Linux version " in the banner, where the header tells it
    # Gives an ELF file or a flat image; raises DamagedInput.
    unpack: Callable[[Limits], memoryview]
