# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens a path: which kind of container it is, and the kernels in it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ejectable.errors import BadInput
from ejectable.intake import DEFAULT_LIMITS, Input, Limits, file_input, is_directory, stream_input
from ejectable.kernel.archive_kernels import Part, kernels_in
from ejectable.kernel.folder_search import kernels_below
from ejectable.kernel.image_file import open_image_file
from ejectable.kernel.initramfs import initramfs_archive, is_initramfs
from ejectable.kernel.kernel import Kernel, Unreadable
from ejectable.kernel.package import Package
from ejectable.kernel.package_set import is_package, open_package

__all__ = ["Kernel", "Package", "Unreadable", "open_inputs", "open_kernels"]


def open_kernels(
    path: str | os.PathLike[str],
    *more: str | os.PathLike[str],
    limits: Limits = DEFAULT_LIMITS,
    initramfs: Sequence[Input] = (),
) -> Iterator[Kernel | Unreadable]:
    """Every kernel in a file, a package, an initramfs, a source tree or a folder; `-` is standard input.

    `more` are the other packages of the same kernel, `initramfs` those that it may be booted with. Raises `BadInput`
    where there is none, `DamagedInput` where it is broken, `Missing` where it cannot be read.
    In a folder, what is broken comes as `Unreadable` and does not keep the others from being read. A kernel reads
    on when it is asked, so its properties and methods raise the same errors.
    """
    if not more and is_directory(path):
        yield from kernels_below(Path(path), limits, open_inputs)
        return
    inputs = [stream_input(os.fspath(one), limits) or file_input(one) for one in (path, *more)]
    yield from open_inputs(inputs, limits, initramfs)


def open_inputs(
    inputs: Sequence[Input], limits: Limits, initramfs: Sequence[Input] = ()
) -> Iterator[Kernel | Unreadable]:
    """The kernels in one file, or in several packages of one kernel."""
    if len(inputs) > 1:
        yield from kernels_in([open_package(source, limits) for source in inputs], limits)
        return
    (source,) = inputs
    with source.open() as file:
        head = file.read(16)
    if not head:
        raise BadInput("expected a kernel, found an empty file", path=source.name)
    extra = [_part(one, limits) for one in initramfs]
    if is_package(head):
        yield from kernels_in([open_package(source, limits)], limits, extra=extra)
    elif is_initramfs(source):
        yield from kernels_in([_part(source, limits)], limits)
    else:
        yield from open_image_file(source, limits, initramfs=extra)


def _part(source: Input, limits: Limits) -> Part:
    return Part(source.name, initramfs_archive(source, limits), None)
