# SPDX-License-Identifier: GPL-2.0-or-later
"""An unpacked kernel, laid out in memory: the `Image` of an ELF vmlinux or of a flat arm64 image."""

import itertools

import msgspec

from ejectable.errors import BadInput
from ejectable.kernel.formats import arm64
from ejectable.kernel.formats.arm64_base import relocated, relocated_segments
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.program import Image, Segment
from ejectable.model import Arch

__all__ = ["Unpacked", "lay_out", "rebased"]

# Kernel addresses are negative. What an x86-64 vmlinux places below is its per-CPU section, linked at 0: a
# template to be copied, no memory at that address (arch/x86/kernel/vmlinux.lds.S, before v6.15).
KERNEL_HALF = 1 << 63


class Unpacked(msgspec.Struct, frozen=True):
    """A kernel in memory. `raw` is the ELF file or the flat image as it was unpacked."""

    raw: memoryview
    image: Image
    elf: Elf | None
    percpu: Segment | None  # the template of the per-CPU area, linked at a low address
    # False for a flat image whose virtual base is not known yet: it is laid out from address 0.
    has_base: bool = True


def lay_out(raw: memoryview, arch: Arch, *, name: str) -> Unpacked:
    """The image of an unpacked kernel; raises `BadInput` or `DamagedInput`."""
    if bytes(raw[:4]) == b"\x7fELF":
        return _of_elf(Elf(raw, name=name))
    if arm64.is_flat_image(raw):
        data, base = relocated(raw)
        return Unpacked(raw, _flat(arch, data, base or 0), None, None, has_base=base is not None)
    raise BadInput("what was unpacked is neither an ELF file nor an arm64 image", path=name)


def rebased(unpacked: Unpacked, base: int) -> Unpacked:
    """The same flat image with its first byte at `base`, as its symbols tell it."""
    data, _ = relocated(unpacked.raw, base)
    return Unpacked(unpacked.raw, _flat(unpacked.image.arch, data, base), None, None)


def _flat(arch: Arch, data: memoryview, base: int) -> Image:
    size = max(len(data), arm64.HEADER.unpack_from(data)[3] if arm64.is_flat_image(data) else 0)
    # The header's image_size counts the BSS, which is not in the file; a hostile one must not count for ever.
    size = min(size, len(data) + (1 << 28))
    return Image(arch, [Segment(base, data, size, True, "Image")])


def _of_elf(elf: Elf) -> Unpacked:
    segments = []
    percpu = None
    for index, load in enumerate(elf.loads):
        segment = Segment(load.address, load.data, load.size, load.executable, f"LOAD {index}")
        if load.address >= KERNEL_HALF:
            segments.append(segment)
        else:
            percpu = percpu or segment
    segments.sort(key=lambda segment: segment.address)
    for before, after in itertools.pairwise(segments):
        if before.address + before.size > after.address:
            raise BadInput("its program segments overlap; a kernel's do not", path=elf.name)
    if not segments:
        raise BadInput("an ELF file that loads nothing into the kernel's half of memory: no kernel", path=elf.name)
    if elf.arch == "aarch64":
        segments = relocated_segments(elf.data, segments)
    return Unpacked(elf.data, Image(elf.arch, segments), elf, percpu)
