# SPDX-License-Identifier: GPL-2.0-or-later
"""From a path to kernels: which container it is, and what is in it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ejectable.errors import BadInput
from ejectable.intake import DEFAULT_LIMITS, Limits, decompress, open_regular, read_bounded
from ejectable.kernel.containers import deb
from ejectable.kernel.containers.archive import Archive
from ejectable.kernel.formats import recognise
from ejectable.kernel.kernel import Kernel, Package, Unreadable
from ejectable.kernel.module import Module
from ejectable.kernel.modules import ArchiveModules

__all__ = ["Kernel", "Package", "Unreadable", "open_kernels"]

IMAGE = re.compile(
    r"(?:boot|(?:usr/)?lib/modules/[^/]+)/(?:vmlinu[xz]|bzImage|Image)(?:[-.].*)?(?<!\.hmac)(?<!\.sig)(?<!\.p7s)"
)
CONFIG = r"(?:boot/config-{0}|(?:usr/)?lib/modules/{0}/config)"


def open_kernels(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Kernel | Unreadable]:
    """Every kernel in a file, a package or a folder.

    Raises `BadInput` where there is none, `DamagedInput` where it is broken, `Missing` where it cannot be read.
    In a folder, what is broken comes as `Unreadable` and does not keep the others from being read.
    """
    name = os.fspath(path)
    with open_regular(path) as file:
        head = file.read(16)
        if head.startswith(deb.MAGIC):
            yield from _in_deb(name, limits)
            return
        data = head + read_bounded(file, limits.in_memory, name=name)
    yield _in_file(name, data, limits)


def _in_file(name: str, data: bytes, limits: Limits) -> Kernel:
    packed = recognise(data, name=name)
    if packed.format == "module":
        module = Module(decompress(data, limits.in_memory, name=name), name=name)
        return Kernel(name, limits=limits, standalone=module)
    return Kernel(name, limits=limits, packed=packed, config=_config_beside(Path(name), limits))


def _config_beside(image: Path, limits: Limits) -> bytes | None:
    stem, dash, release = image.name.partition("-")
    del stem
    for candidate in ([image.with_name(f"config-{release}")] if dash else []) + [image.with_name(".config")]:
        if candidate.is_file():
            with open_regular(candidate) as file:
                return read_bounded(file, limits.in_memory, name=str(candidate))
    return None


def _in_deb(name: str, limits: Limits) -> Iterator[Kernel]:
    fields = deb.control_fields(name, limits)
    package = Package(fields.get("Package", ""), fields.get("Version", ""))
    yield from in_archive(name, deb.data_archive(name, limits), package, limits)


def in_archive(path: str, archive: Archive, package: Package | None, limits: Limits) -> Iterator[Kernel]:
    """The kernel of a package."""
    member = archive.find(IMAGE)
    if member is None:
        raise BadInput(
            f"the package {package.name if package else ''} holds no kernel",
            path=path,
            hint="Headers, debug symbols and metapackages have none; give the package of the image itself.",
        )
    packed = recognise(archive.read(member), name=f"{path}({member})")
    modules = ArchiveModules(archive)
    kernel = Kernel(
        path, limits=limits, member=member, packed=packed, modules=modules, package=package,
        config=None,
    )  # fmt: skip
    yield kernel
