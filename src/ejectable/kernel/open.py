# SPDX-License-Identifier: GPL-2.0-or-later
"""From a path to kernels: which container it is, and what is in it."""

import os
from collections.abc import Iterator
from pathlib import Path

from ejectable.errors import BadInput
from ejectable.intake import (
    DEFAULT_LIMITS,
    Compression,
    Limits,
    is_directory,
    open_decompressed,
    open_regular,
    sniff,
)
from ejectable.kernel.archive_kernels import Part, kernels_in
from ejectable.kernel.containers import cpio, deb, rpm
from ejectable.kernel.containers.archive import Archive, Entry
from ejectable.kernel.folder_search import kernels_below
from ejectable.kernel.image_file import open_image_file
from ejectable.kernel.kernel import Kernel, Unreadable
from ejectable.kernel.package import Package
from ejectable.kernel.package_set import open_package

__all__ = ["Kernel", "Package", "Unreadable", "open_kernels"]


def open_kernels(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Kernel | Unreadable]:
    """Every kernel in a file, a package, an initramfs, a source tree or a folder.

    Raises `BadInput` where there is none, `DamagedInput` where it is broken, `Missing` where it cannot be read.
    In a folder, what is broken comes as `Unreadable` and does not keep the others from being read. A kernel reads
    on when it is asked, so its properties and methods raise the same errors.
    """
    if is_directory(path):
        yield from kernels_below(Path(path), limits, _in_file)
    else:
        yield from _in_file(Path(path), limits)


def _in_file(path: Path, limits: Limits) -> Iterator[Kernel | Unreadable]:
    with open_regular(path) as file:
        head = file.read(16)
    if not head:
        raise BadInput("expected a kernel, found an empty file", path=str(path))
    if head.startswith((deb.MAGIC, rpm.MAGIC)):
        yield from kernels_in([open_package(path, limits)], limits)
    elif _is_initramfs(path, head):
        yield from kernels_in([_initramfs(path, limits)], limits)
    else:
        yield open_image_file(path, limits)


def _is_initramfs(path: Path, head: bytes) -> bool:
    if head[:6] in cpio.MAGICS:
        return True
    if sniff(head) is Compression.NONE:
        return False
    with open_regular(path) as file:
        return open_decompressed(file, name=str(path)).read(6) in cpio.MAGICS


def _initramfs(path: Path, limits: Limits) -> Part:
    def walk() -> Iterator[Entry]:
        with open_regular(path) as file:
            yield from cpio.initramfs_entries(file, name=str(path), limit=limits.unpacked)

    return Part(str(path), Archive(walk, name=str(path), limits=limits), None)
