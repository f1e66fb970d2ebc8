# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel as the linker left it, vmlinux, and modules: plain ELF files."""

from ejectable.errors import BadInput, NotSupported
from ejectable.intake import Compression
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.formats.packed import Packed

__all__ = ["recognise"]


def recognise(data: memoryview, name: str) -> Packed | None:
    """An ELF kernel ("vmlinux") or a relocatable ELF file ("module"); `None` if it is no ELF file."""
    if bytes(data[:4]) != b"\x7fELF":
        return None
    try:
        elf = Elf(data, name=name)
    except NotSupported as error:
        raise BadInput(f"an ELF file for {error.arch}, and no kernel", path=name) from error
    return Packed(
        format="module" if elf.kind == "relocatable" else "vmlinux",
        arch=elf.arch,
        compression=Compression.NONE,
        version=None,
        unpack=lambda _limits: data,
    )
