# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel image or a module that is a compressed file as a whole: Image.gz, vmlinux.xz, virtio_pci.ko.zst."""

import io

from ejectable.errors import BadInput
from ejectable.intake import Compression, Limits, decompress, open_decompressed, sniff
from ejectable.kernel.formats import arm64, foreign, vmlinux
from ejectable.kernel.formats.packed import Packed

__all__ = ["recognise"]

ENOUGH = 0x10100  # to see what is inside: the mark of an s390 image stands at 0x10008


def recognise(data: memoryview, name: str) -> Packed | None:
    """What is compressed, under its own name; `None` if the file is not compressed or holds no kernel."""
    compression = sniff(bytes(data[:16]))
    if compression is Compression.NONE:
        return None
    with open_decompressed(io.BytesIO(data), name=name) as stream:
        head = memoryview(stream.read(ENOUGH))
    arch = foreign.architecture(head)
    if arch is not None:
        raise foreign.refuse(arch, name)
    inner = arm64.recognise(head, name) or vmlinux.recognise(head, name)
    if inner is None:
        raise BadInput(f"a {compression} stream, but no kernel image in it", path=name)

    def unpack(limits: Limits) -> memoryview:
        return memoryview(decompress(data, limits.in_memory, name=name, size=_promised_size(data, compression)))

    return Packed(format=inner.format, arch=inner.arch, compression=compression, version=inner.version, unpack=unpack)


def _promised_size(data: memoryview, compression: Compression) -> int | None:
    """The kernel's build appends the unpacked size to all but gzip; elsewhere these four bytes are not true."""
    return None if compression is Compression.GZIP else int.from_bytes(data[-4:], "little")
