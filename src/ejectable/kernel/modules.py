# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the modules of a kernel lie: in the same archive, below lib/modules, in a build tree, or beside it."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import msgspec

from ejectable.errors import DamagedInput
from ejectable.intake import Limits, open_regular, read_bounded
from ejectable.intake.module_files import MODULE_SUFFIX, by_precedence, listed, module_name, module_names
from ejectable.kernel.containers.archive import Archive
from ejectable.model import Doubt, DoubtKind

__all__ = ["TREE", "ArchiveModules", "FolderModules", "ModuleFile", "ModuleFiles", "ModuleSource", "files_below"]

MOST_FILES = 1 << 17  # a distribution kernel has some 5,000 modules; a build tree some 100,000 files
MOST_LIST = 16 << 20  # of modules.builtin, modules.dep
PREFIX = r"(?:usr/lib/debug/)?(?:usr/)?lib/modules/"  # what a package of debug symbols holds, too
TREE = re.compile(rf"{PREFIX}([^/]+)/(.+)")


class ModuleFile(msgspec.Struct, frozen=True):
    """A file that may hold the module that was asked for; `read` gives it as it lies there, compressed or not."""

    name: str
    read: Callable[[], bytes]
    listed: bool = False  # modules.dep names it, so that modprobe loads it and no other
    far: bool = False  # only its release connects it with the image: it lies in another folder


class ModuleFiles(msgspec.Struct, frozen=True):
    """The files that may hold a module, the one that is loaded first, and what was not seen while looking for them."""

    files: tuple[ModuleFile, ...] = ()
    doubts: tuple[Doubt, ...] = ()


class ModuleSource(Protocol):
    """The module files that came with a kernel.

    It may offer a module of another release: the caller compares the one that the module itself tells.
    """

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """The files that may be this module; `module` is spelt with underscores."""

    def names(self, release: str | None) -> frozenset[str]:
        """The names of all modules."""

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """What modules.builtin lists; `None` if there is no such file."""


class ArchiveModules:
    """The modules in packages or an initramfs: `archives` are those that were given together, each with its path."""

    def __init__(self, *archives: tuple[str, Archive]) -> None:
        self._archives = archives

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """As `ModuleSource.find`."""
        stem = "[-_]".join(re.escape(part) for part in re.split("[-_]", module))
        pattern = re.compile(rf"{_folder(release)}(?:.*/)?{stem}{MODULE_SUFFIX}")
        files: list[ModuleFile] = []
        doubts: list[Doubt] = []
        for path, archive in self._archives:
            below: dict[str, dict[str, str]] = {}
            for member in archive.find_all(pattern):
                if found := TREE.fullmatch(member):
                    below.setdefault(found[1], {})[found[2]] = member
            for folder, members in below.items():
                dep = self._list(archive, folder, "modules.dep")
                named, missing = _named(dep, module, members, f"{path}(lib/modules/{folder}/modules.dep)")
                doubts += missing
                files += [
                    ModuleFile(f"{path}({members[file]})", partial(archive.read, members[file]), file == named)
                    for file in by_precedence(members, dep, module)
                ]
        return ModuleFiles(tuple(files), tuple(doubts))

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        pattern = re.compile(rf"{_folder(release)}.*{MODULE_SUFFIX}")
        found = (member for _, archive in self._archives for member in archive.find_all(pattern))
        return frozenset(name for name in map(module_name, found) if name)

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`."""
        lists = [self._list(archive, release, "modules.builtin") for _, archive in self._archives]
        found = [module_names(text) for text in lists if text is not None]
        return frozenset[str]().union(*found) if found else None

    @staticmethod
    def _list(archive: Archive, release: str | None, name: str) -> bytes | None:
        member = archive.find(re.compile(rf"{_folder(release)}{re.escape(name)}"))
        return archive.read(member) if member else None


def _folder(release: str | None) -> str:
    return rf"{PREFIX}{re.escape(release) if release else '[^/]+'}/"


def _named(dep: bytes | None, module: str, files: Iterable[str], where: str) -> tuple[str | None, list[Doubt]]:
    """Which of these files modules.dep names; a doubt where it names one that is not among them."""
    named = listed(dep, module) if dep is not None else None
    if named is None or named in files:
        return named, []
    detail = f"modules.dep names {named} for {module}, and that file is not there."
    return None, [Doubt(DoubtKind.MISSING, where, detail)]


class FolderModules:
    """The modules around an image in a folder.

    `trees` gives the folders for a release, lib/modules/RELEASE or the top of a build tree; each is searched once, as
    a whole. `beside` gives the module files in the image's own folder, `far` those in other folders.
    """

    def __init__(
        self,
        trees: Callable[[str | None], Iterable[Path]],
        beside: Callable[[], Iterable[Path]],
        limits: Limits,
        far: Callable[[], Iterable[Path]] = tuple,
    ) -> None:
        self._trees = cache(lambda release: _different(trees(release)))
        self._beside = cache(lambda: tuple(path for path in beside() if module_name(path.name)))
        self._far = far
        self._limits = limits
        self._files = cache(_modules_below)

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """As `ModuleSource.find`."""
        files: list[ModuleFile] = []
        doubts: list[Doubt] = []
        trees = self._trees(release)
        for tree in trees:
            found = {path.relative_to(tree).as_posix(): path for path in self._files(tree).get(module, ())}
            dep = self._list(tree / "modules.dep")
            named, missing = _named(dep, module, found, str(tree / "modules.dep"))
            doubts += missing
            # Where there are two trees of one release, nothing tells which of their lists counts.
            files += [
                ModuleFile(str(found[file]), partial(self._read, found[file]), file == named and len(trees) == 1)
                for file in by_precedence(found, dep, module)
            ]
        files += [ModuleFile(str(path), partial(self._read, path)) for path in self._beside() if _is(path, module)]
        met = {file.name for file in files}
        files += [
            ModuleFile(str(path), partial(self._read, path), far=True)
            for path in self._far()
            if _is(path, module) and str(path) not in met
        ]
        return ModuleFiles(tuple(files), tuple(doubts))

    def _read(self, path: Path) -> bytes:
        with open_regular(path) as file:
            return read_bounded(file, self._limits.in_memory, name=str(path))

    def _list(self, path: Path) -> bytes | None:
        if not path.is_file():
            return None
        with open_regular(path) as file:
            return read_bounded(file, MOST_LIST, name=str(path))

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        below = frozenset(name for tree in self._trees(release) for name in self._files(tree))
        return below | {name for path in self._beside() if (name := module_name(path.name))}

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`."""
        lists = (self._list(tree / "modules.builtin") for tree in self._trees(release))
        found = next((text for text in lists if text is not None), None)
        return module_names(found) if found is not None else None


def _is(path: Path, module: str) -> bool:
    return module_name(path.name) == module


def _different(trees: Iterable[Path]) -> tuple[Path, ...]:
    """The folders that are there, each once: lib is often a link to usr/lib."""
    found: dict[Path, Path] = {}
    for tree in trees:
        if tree.is_dir():
            found.setdefault(tree.resolve(), tree)
    return tuple(found.values())


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
