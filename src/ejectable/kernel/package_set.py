# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel that came in several packages: the image in one, its modules in others.

Ubuntu has linux-image-* and linux-modules-*, Fedora and Red Hat kernel-core, kernel-modules-core and kernel-modules:
what is built as a module there is in none of the image's packages, and its absence from one proves nothing.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ejectable.errors import BadInput
from ejectable.intake import DEFAULT_LIMITS, Limits, open_regular
from ejectable.kernel.containers import deb, rpm
from ejectable.kernel.containers.archive import Archive
from ejectable.kernel.formats import recognise
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.modules import ArchiveModules
from ejectable.kernel.open import CONFIG, IMAGE
from ejectable.kernel.package import Package, from_deb, from_rpm

__all__ = ["open_package_set"]


def open_package_set(paths: Sequence[Path], *, limits: Limits = DEFAULT_LIMITS) -> Kernel:
    """The kernel whose image is in one of the packages, with the modules and the configuration of all of them.

    Raises `BadInput` where none holds an image, `DamagedInput` where one is broken.
    """
    opened = [_open(path, limits) for path in paths]
    archives = [(str(path), archive) for path, archive, _ in opened]
    for path, archive, package in opened:
        member = archive.find(IMAGE)
        if member is not None:
            return Kernel(
                str(path),
                limits=limits,
                member=member,
                packed=recognise(archive.read(member), name=f"{path}({member})"),
                modules=_SetModules(archives),
                config=lambda release: _config(archives, release),
                package=package,
            )
    names = ", ".join(path.name for path in paths)
    raise BadInput(f"none of these packages holds a kernel image: {names}")


def _open(path: Path, limits: Limits) -> tuple[Path, Archive, Package | None]:
    with open_regular(path) as file:
        head = file.read(8)
    if head.startswith(deb.MAGIC):
        archive = deb.data_archive(path, limits)
        return path, archive, from_deb(str(path), archive, limits)
    if head.startswith(rpm.MAGIC):
        return path, rpm.data_archive(path, limits), from_rpm(str(path))
    raise BadInput("expected a Debian or an RPM package, found something else", path=str(path))


def _config(archives: Sequence[tuple[str, Archive]], release: str | None) -> bytes | None:
    pattern = re.compile(CONFIG.format(re.escape(release) if release else "[^/]+"))
    for _, archive in archives:
        if member := archive.find(pattern):
            return archive.read(member)
    return None


class _SetModules:
    """The module sources of several packages as one (an `ejectable.kernel.modules.ModuleSource`)."""

    def __init__(self, archives: Sequence[tuple[str, Archive]]) -> None:
        self._sources = [ArchiveModules(path, archive) for path, archive in archives]

    def find(self, release: str | None, module: str) -> Iterator[tuple[str, bytes]]:
        for source in self._sources:
            yield from source.find(release, module)

    def names(self, release: str | None) -> frozenset[str]:
        return frozenset[str]().union(*(source.names(release) for source in self._sources))

    def builtin(self, release: str | None) -> frozenset[str] | None:
        lists = [found for source in self._sources if (found := source.builtin(release)) is not None]
        return frozenset[str]().union(*lists) if lists else None
