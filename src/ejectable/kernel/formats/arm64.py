# SPDX-License-Identifier: GPL-2.0-or-later
"""The flat arm64 image: memory from `_text` on, behind a header of 64 bytes.

Layout: Documentation/arch/arm64/booting.rst. The file does not tell its virtual base; `layout` finds it.
"""

import struct

from ejectable.intake import Compression
from ejectable.kernel.formats.packed import Packed

__all__ = ["HEADER", "is_flat_image", "recognise"]

# code0, code1, text_offset, image_size, flags, 24 reserved bytes, magic, offset of the PE header
HEADER = struct.Struct("<IIQQQ24x4sI")
MAGIC = b"ARM\x64"


def is_flat_image(data: memoryview) -> bool:
    """Whether `data` begins with the header of an arm64 image."""
    return len(data) >= HEADER.size and data[56:60] == MAGIC


def recognise(data: memoryview, _name: str) -> Packed | None:
    """A flat arm64 image; `None` if it is something else."""
    if not is_flat_image(data):
        return None
    return Packed(
        format="Image", arch="aarch64", compression=Compression.NONE, version=None, unpack=lambda _limits: data
    )
