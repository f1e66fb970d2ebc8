# SPDX-License-Identifier: GPL-2.0-or-later
"""An initramfs as an archive of files."""

from collections.abc import Iterator

from ejectable.intake import Compression, Input, Limits, open_decompressed, sniff
from ejectable.kernel.containers import cpio
from ejectable.kernel.containers.archive import Archive, Entry

__all__ = ["initramfs_archive", "is_initramfs"]


def is_initramfs(source: Input) -> bool:
    """Whether a file begins as a cpio archive, packed or not."""
    with source.open() as file:
        head = file.read(16)
    if head[:6] in cpio.MAGICS:
        return True
    if sniff(head) is Compression.NONE:
        return False
    with source.open() as file:
        return open_decompressed(file, name=source.name).read(6) in cpio.MAGICS


def initramfs_archive(source: Input, limits: Limits) -> Archive:
    """The files of an initramfs, all archives of it one over the other."""

    def walk() -> Iterator[Entry]:
        with source.open() as file:
            yield from cpio.initramfs_entries(file, name=source.name, limit=limits.unpacked)

    return Archive(walk, name=source.name, limits=limits)
