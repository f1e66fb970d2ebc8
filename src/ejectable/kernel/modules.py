# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the modules of a kernel lie: in the same archive, below lib/modules, in a build tree, or beside it."""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from functools import cache, partial
from typing import Protocol

import msgspec

from ejectable.errors import EjectableError
from ejectable.intake import Limits, Root
from ejectable.intake.module_files import MODULE_SUFFIX, by_precedence, listed, module_name, module_names
from ejectable.intake.reasons import doubt_of
from ejectable.kernel.containers.archive import Archive
from ejectable.model import Doubt, DoubtKind

__all__ = [
    "TREE",
    "ArchiveModules",
    "FolderModules",
    "InitramfsModules",
    "JoinedModules",
    "ModuleFile",
    "ModuleFiles",
    "ModuleSource",
    "Rank",
]

# lib/modules/RELEASE/build and source are links to where it was built, which seldom are there.
COMMON = (DoubtKind.MISSING,)
MOST_LIST = 16 << 20  # of modules.builtin, modules.dep
PREFIX = r"(?:usr/lib/debug/)?(?:usr/)?lib/modules/"  # what a package of debug symbols holds, too
TREE = re.compile(rf"{PREFIX}([^/]+)/(.+)")


class Rank(IntEnum):
    """How a module's file is connected with the image, from the closest on."""

    LOADED = 0  # it lies where the machine loads it from: its initramfs, lib/modules/RELEASE, the same package
    BESIDE = 1  # it lies in the image's folder
    FAR = 2  # only its release connects it with the image: it lies in another folder


class ModuleFile(msgspec.Struct, frozen=True):
    """A file that may hold the module that was asked for; `read` gives it as it lies there, compressed or not."""

    name: str
    read: Callable[[], bytes]
    rank: Rank = Rank.LOADED
    origin: str = ""  # the folder or archive that it lies in
    listed: bool = False  # modules.dep of its origin names it, so that modprobe loads it and no other from there


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
                    ModuleFile(
                        f"{path}({members[file]})",
                        partial(archive.read, members[file]),
                        origin=path,
                        listed=file == named,
                    )
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
    """The modules around an image in a folder, all of them below `root`.

    `trees` gives the folders for a release, lib/modules/RELEASE or the top of a build tree; each is searched once, as
    a whole. `beside` is the image's own folder, `far` gives the module files in others.
    """

    def __init__(
        self,
        root: Root,
        trees: Callable[[str | None], Iterable[str]],
        beside: str,
        limits: Limits,
        far: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._root = root
        self._trees = cache(lambda release: self._different(trees(release)))
        self._folder = beside
        self._far = far
        self._limits = limits
        self._files = cache(self._modules_below)

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """As `ModuleSource.find`."""
        files: list[ModuleFile] = []
        doubts: list[Doubt] = []
        with self._root.recording() as recording:
            for tree in self._trees(release):
                found = {path.removeprefix(f"{tree}/"): path for path in self._files(tree).get(module, ())}
                dep = self._root.read(f"{tree}/modules.dep", MOST_LIST)
                where = self._root.outside(f"{tree}/modules.dep")
                named, missing = _named(dep, module, found, where)
                doubts += missing
                files += [
                    self._file(found[file], Rank.LOADED, tree, listed=file == named)
                    for file in by_precedence(found, dep, module)
                ]
            files += [self._file(path, Rank.BESIDE, "") for path in self._beside() if module_name(path) == module]
        met = {file.name for file in files}
        far = [self._file(path, Rank.FAR, "") for path in self._far() if module_name(path) == module]
        doubts += (doubt for doubt in recording.doubts if doubt.kind not in COMMON)
        return ModuleFiles((*files, *(file for file in far if file.name not in met)), tuple(doubts))

    def _file(self, path: str, rank: Rank, origin: str, *, listed: bool = False) -> ModuleFile:
        name = self._root.outside(path)
        return ModuleFile(name, partial(self._root.content, path, self._limits.in_memory), rank, origin, listed)

    def _beside(self) -> Iterator[str]:
        for name in self._root.list(self._folder) or ():
            path = f"{self._folder.rstrip('/')}/{name}"
            if module_name(name) and self._root.is_file(path):
                yield path

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        below = frozenset(name for tree in self._trees(release) for name in self._files(tree))
        return below | {name for path in self._beside() if (name := module_name(path))}

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`."""
        lists = (self._root.read(f"{tree}/modules.builtin", MOST_LIST) for tree in self._trees(release))
        found = next((text for text in lists if text is not None), None)
        return module_names(found) if found is not None else None

    def _different(self, trees: Iterable[str]) -> tuple[str, ...]:
        """The folders that are there, each once: lib is often a link to usr/lib."""
        found = (self._root.resolve(tree) for tree in trees if self._root.is_dir(tree))
        return tuple(dict.fromkeys(path for path in found if path is not None))

    def _modules_below(self, tree: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for folder, _, names in self._root.walk(tree):
            for file in names:
                name = module_name(file)
                if name:
                    found.setdefault(name, []).append(f"{folder.rstrip('/')}/{file}")
        return found


class JoinedModules:
    """Several sources as one: an initramfs and the folder of modules that was on the disk when it was made."""

    def __init__(self, *sources: ModuleSource) -> None:
        self._sources = sources

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """As `ModuleSource.find`."""
        found = [source.find(release, module) for source in self._sources]
        files = (file for each in found for file in each.files)
        return ModuleFiles(tuple(files), tuple(doubt for each in found for doubt in each.doubts))

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleSource.names`."""
        return frozenset[str]().union(*(source.names(release) for source in self._sources))

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleSource.builtin`: the first list there is."""
        lists = (source.builtin(release) for source in self._sources)
        return next((found for found in lists if found is not None), None)


class InitramfsModules:
    """The modules in the initramfs that an image is booted with; `archives` gives them when they are asked for.

    What cannot be read of one is a doubt: the module in it is the one that the boot loads.
    """

    def __init__(self, archives: Callable[[str | None], Iterable[tuple[str, Callable[[], Archive | None]]]]) -> None:
        self._archives = archives
        self._opened: dict[str, Archive | None] = {}

    def find(self, release: str | None, module: str) -> ModuleFiles:
        """As `ModuleSource.find`."""
        files: list[ModuleFile] = []
        doubts: list[Doubt] = []
        for path, opened in self._archives(release):
            try:
                if path not in self._opened:
                    self._opened[path] = opened()
                archive = self._opened[path]
                if archive is not None:
                    found = ArchiveModules((path, archive)).find(release, module)
                    files += found.files
                    doubts += found.doubts
            except EjectableError as error:
                doubts.append(doubt_of(error, path))
        return ModuleFiles(tuple(files), tuple(doubts))

    def names(self, release: str | None) -> frozenset[str]:
        """None: what is on the disk is complete, what is in an initramfs is a choice of it."""
        del release
        return frozenset()

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """Not asked."""
        del release
        return None
