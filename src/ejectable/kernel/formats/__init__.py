# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel image formats: recognised by magic, unpacked, and laid out in memory as the kernel lays itself out.

    recognise(data)  →  Packed       what it is; nothing was unpacked yet
    Packed.unpack()  →  bytes        an ELF vmlinux, or the flat image of arm64
    lay_out(bytes)   →  Unpacked     an `Image` by virtual address

A format is a module here with a function `recognise(data, name) -> Packed | None`, listed in `FORMATS`.
"""

from collections.abc import Callable

from ejectable.errors import BadInput
from ejectable.kernel.formats import arm64, bzimage, compressed, foreign, vmlinux, zboot
from ejectable.kernel.formats.layout import Unpacked, lay_out
from ejectable.kernel.formats.packed import Packed

__all__ = ["FORMATS", "Packed", "Unpacked", "lay_out", "recognise"]

FORMATS: tuple[Callable[[memoryview, str], Packed | None], ...] = (
    bzimage.recognise,
    zboot.recognise,
    arm64.recognise,
    vmlinux.recognise,
    compressed.recognise,
)


def recognise(data: bytes | memoryview, *, name: str) -> Packed:
    """What kernel image this is; raises `BadInput` if it is none, `DamagedInput` if its header is broken.

    Raises `NotSupported` for a kernel of another architecture.
    """
    view = memoryview(data).toreadonly()
    foreign.recognise(view, name)
    for read in FORMATS:
        packed = read(view, name)
        if packed is not None:
            return packed
    raise BadInput(
        "expected a kernel image, found something else",
        path=name,
        hint="Known are vmlinuz, bzImage, Image, vmlinuz.efi, vmlinux, virtio_pci.ko, unified kernel images, uImage, "
        "FIT and Android boot images, .deb and .rpm packages, an initramfs, a directory and a kernel source tree.",
    )
