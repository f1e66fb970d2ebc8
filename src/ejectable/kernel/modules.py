# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the modules of a kernel lie: in the same archive, below lib/modules, in a build tree, or beside it."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

from ejectable.errors import DamagedInput
from ejectable.intake import Limits, open_regular, read_bounded
from ejectable.kernel.containers.archive import Archive

__all__ = ["ArchiveModules", "FolderModules", "ModuleSource", "files_below", "module_name"]

SUFFIX = re.compile(r"\.ko(?:\.gz|\.xz|\.zst)?$")
MOST_FILES = 1 << 17  # a distribution kernel has some 5,000 modules; a build tree some 100,000 files
MOST_LIST = 16 << 20  # of modules.builtin


def module_name(file: str) -> str | None:
    """The module's name by its file's, `virtio_pci` for "virtio-pci.ko.xz"; `None` if it is no module's file."""
    base = file.rpartition("/")[2]
    stem = SUFFIX.sub("", base)
    return stem.replace("-", "_") if stem != base else None


def _listed(text: bytes) -> frozenset[str]:
    names = (module_name(line.strip()) for line in text.decode("utf-8", "replace").splitlines())
    return frozenset(name for name in names if name)


class ModuleSource(Protocol):
    """The module files of one kernel release. Contents are as they lie there, compressed or not.

    A source may offer a module of another release: the caller compares the one that the module itself tells.
    """

    def find(self, release: str | None, module: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file that may be this module; `module` is spelt with underscores."""

    def names(self, release: str | None) -> frozenset[str]:
        """The names of all modules."""

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """What modules.builtin lists; `None` if there is no such file."""


class ArchiveModules:
    """The modules in the same package; `path` is the package's."""

    def __init__(self, path: str, archive: Archive) -> None:
        self._path = path
        self._archive = archive

    def find(self, release: str | None, module: str) -> Iterator[tuple[str, bytes]]:
        """As `ModuleSource.find`."""
        stem = "[-_]".join(re.escape(part) for part in re.split("[-_]", module))
        pattern = re.compile(rf"{_folder(release)}(?:.*/)?{stem}\.ko(?:\.gz|\.xz|\.zst)?")
        for member in self._archive.find_all(pattern):
            yield f"{self._path}({member})", self._archive.read(member)

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        found = self._archive.find_all(re.compile(rf"{_folder(release)}.*\.ko(?:\.gz|\.xz|\.zst)?"))
        return frozenset(name for name in map(module_name, found) if name)

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`."""
        member = self._archive.find(re.compile(rf"{_folder(release)}modules\.builtin"))
        return _listed(self._archive.read(member)) if member else None


def _folder(release: str | None) -> str:
    return rf"(?:usr/)?lib/modules/{re.escape(release) if release else '[^/]+'}/"


class FolderModules:
    """The modules below some folders, and some that lie about.

    `roots` gives the folders for a release, such as lib/modules/RELEASE or the top of a build tree; each is
    searched once, as a whole. `loose` gives module files.
    """

    def __init__(
        self,
        roots: Callable[[str | None], Iterable[Path]],
        loose: Callable[[], Iterable[Path]],
        limits: Limits,
    ) -> None:
        self._roots = cache(lambda release: tuple(root for root in roots(release) if root.is_dir()))
        self._loose = cache(lambda: tuple(path for path in loose() if module_name(path.name)))
        self._limits = limits
        self._files = cache(_modules_below)

    def find(self, release: str | None, module: str) -> Iterator[tuple[str, bytes]]:
        """As `ModuleSource.find`."""
        for root in self._roots(release):
            found = self._files(root).get(module, ())
            for path in sorted(found, key=lambda path: _precedence(path.relative_to(root).parts[0])):
                yield str(path), self._read(path)
        for path in self._loose():
            if module_name(path.name) == module:
                yield str(path), self._read(path)

    def _read(self, path: Path) -> bytes:
        with open_regular(path) as file:
            return read_bounded(file, self._limits.in_memory, name=str(path))

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        below = frozenset(name for root in self._roots(release) for name in self._files(root))
        return below | {name for path in self._loose() if (name := module_name(path.name))}

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`."""
        for root in self._roots(release):
            path = root / "modules.builtin"
            if path.is_file():
                with open_regular(path) as file:
                    return _listed(read_bounded(file, MOST_LIST, name=str(path)))
        return None


def _precedence(folder: str) -> int:
    """Which of two modules of one name is loaded: depmod.d(5), as distributions set its `search`."""
    return {"updates": 0, "extra": 1, "weak-updates": 3}.get(folder, 2)


def _modules_below(root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in files_below(root):
        name = module_name(path.name)
        if name:
            found.setdefault(name, []).append(path)
    return found


def files_below(root: Path, skip: Callable[[Path, list[str]], bool] | None = None) -> Iterator[Path]:
    """Every file below `root`, sorted; links to folders are not followed, and what may not be listed is left out.

    `skip(folder, names)`, asked with the names of the files in a folder, says whether to leave out that folder and
    all below it. Raises `DamagedInput` beyond 131,072 files, so that nobody takes a part for the whole.
    """
    count = 0
    for folder, folders, files in os.walk(root):
        if skip is not None and skip(Path(folder), files):
            folders.clear()
            continue
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > MOST_FILES:
                raise DamagedInput(
                    f"more than {MOST_FILES} files below it", path=str(root), hint="Name the kernel's own folder."
                )
            yield Path(folder, name)
