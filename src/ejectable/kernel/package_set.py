# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel that came in several packages: the image in one, its modules in others.

Ubuntu has linux-image-* and linux-modules-*, Debian since 14 linux-binary-* and linux-modules-*, Fedora and Red Hat
kernel-core, kernel-modules-core and kernel-modules: what is built as a module there is in none of the image's packages,
and its absence from one proves nothing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ejectable.errors import BadInput, EjectableError
from ejectable.intake import DEFAULT_LIMITS, Input, Limits, file_input
from ejectable.kernel.archive_kernels import Part, kernels_in
from ejectable.kernel.containers import deb, rpm
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.kernel.package import Package, from_deb, from_rpm

__all__ = ["groups", "is_package", "open_package", "open_package_set"]

MAGICS = (deb.MAGIC, rpm.MAGIC)


def is_package(head: bytes) -> bool:
    """Whether a file that begins like this is a Debian or an RPM package."""
    return head.startswith(MAGICS)


def groups(inputs: Iterable[Input], limits: Limits = DEFAULT_LIMITS) -> list[tuple[Input, ...]]:
    """The inputs in their order, packages of one kernel together at the place of the first; all else by itself.

    They belong together if name, version and architecture on them say so. Where a package is there twice there were two
    builds: then those of one folder belong together, and of two in one folder each is by itself.
    """
    every = [(source, _package_of(source, limits)) for source in inputs]
    found: dict[tuple[str, ...], list[Input]] = {}
    for number, (source, package) in enumerate(every):
        alike = [other for other in every if package and other[1] and other[1].kernel == package.kernel]
        key: tuple[str, ...] = ("", str(number))
        if package is not None and package.kernel is not None:
            key = (package.kernel,)
            if _twice(alike):
                beside = [other for other in alike if _folder(other[0]) == _folder(source)]
                key = ("", str(number)) if _twice(beside) else (package.kernel, _folder(source))
        found.setdefault(key, []).append(source)
    return [tuple(group) for group in found.values()]


def _twice(packages: Sequence[tuple[Input, Package | None]]) -> bool:
    names = [package.name for _, package in packages if package is not None]
    return len(names) != len(set(names))


def _folder(source: Input) -> str:
    return str(source.path.absolute().parent) if source.path is not None else ""


def _package_of(source: Input, limits: Limits) -> Package | None:
    """What is written on a package; `None` for what is none, or cannot be read."""
    try:
        with source.open() as file:
            head = file.read(8)
        return open_package(source, limits).package if is_package(head) else None
    except (EjectableError, OSError):
        return None


def open_package_set(paths: Sequence[Path], *, limits: Limits = DEFAULT_LIMITS) -> ImageKernel:
    """The kernel whose image is in one of the packages, with the modules and the configuration of all of them.

    Raises `BadInput` where none holds an image, `DamagedInput` where one is broken.
    """
    parts = [open_package(file_input(path), limits) for path in paths]
    for kernel in kernels_in(parts, limits):
        if isinstance(kernel, ImageKernel):
            return kernel
    names = ", ".join(path.name for path in paths)
    raise BadInput(f"none of these packages holds a kernel image: {names}")


def open_package(source: Input, limits: Limits) -> Part:
    """The files of a Debian or an RPM package; raises `BadInput` for something else."""
    with source.open() as file:
        head = file.read(8)
    if head.startswith(deb.MAGIC):
        archive = deb.data_archive(source, limits)
        return Part(source.name, archive, from_deb(source, archive, limits))
    if head.startswith(rpm.MAGIC):
        return Part(source.name, rpm.data_archive(source, limits), from_rpm(source))
    raise BadInput("expected a Debian or an RPM package, found something else", path=source.name)
