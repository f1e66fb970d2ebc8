# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the modules of a kernel lie: in the same archive, below lib/modules, in a build tree, or beside it."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ejectable.intake import Limits, open_regular, read_bounded
from ejectable.kernel.containers.archive import Archive

__all__ = ["ArchiveModules", "FolderModules", "ModuleShelf", "module_name"]

SUFFIX = re.compile(r"\.ko(?:\.gz|\.xz|\.zst)?$")
MOST_FILES = 1 << 17  # a distribution kernel has some 5,000 modules; a build tree some 100,000 files
MOST_LIST = 16 << 20  # of modules.builtin


def module_name(file: str) -> str | None:
    """The module's name by its file's, `virtio_pci` for "virtio-pci.ko.xz"; `None` if it is no module's file."""
    base = file.rpartition("/")[2]
    stem = SUFFIX.sub("", base)
    return stem.replace("-", "_") if stem != base else None


def _builtin_names(text: bytes) -> frozenset[str]:
    names = (module_name(line.strip()) for line in text.decode("utf-8", "replace").splitlines())
    return frozenset(name for name in names if name)


class ModuleShelf(Protocol):
    """The module files of one kernel release. Contents are as they lie there, compressed or not."""

    def find(self, release: str | None, module: str) -> tuple[str, bytes] | None:
        """Name and content of the file of this module; `None` if there is none."""

    def names(self, release: str | None) -> frozenset[str]:
        """The names of all modules."""

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """What modules.builtin lists; `None` if there is no such file."""


class ArchiveModules:
    """The modules in the same package."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def find(self, release: str | None, module: str) -> tuple[str, bytes] | None:
        """As `ModuleShelf.find`."""
        stem = "[-_]".join(re.escape(part) for part in re.split("[-_]", module))
        member = self._archive.find(re.compile(rf"{_folder(release)}.*/{stem}\.ko(?:\.gz|\.xz|\.zst)?"))
        return (member, self._archive.read(member)) if member else None

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleShelf.names`."""
        found = self._archive.find_all(re.compile(rf"{_folder(release)}.*\.ko(?:\.gz|\.xz|\.zst)?"))
        return frozenset(name for name in map(module_name, found) if name)

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleShelf.builtin`."""
        member = self._archive.find(re.compile(rf"{_folder(release)}modules\.builtin"))
        return _builtin_names(self._archive.read(member)) if member else None


def _folder(release: str | None) -> str:
    return rf"(?:usr/)?lib/modules/{re.escape(release) if release else '[^/]+'}/"


class FolderModules:
    """The modules below some folders, each searched once and as a whole.

    `roots` are folders such as lib/modules/RELEASE or the top of a build tree.
    """

    def __init__(self, roots: Iterable[Path], limits: Limits) -> None:
        self._roots = tuple(roots)
        self._limits = limits

    @cached_property
    def _files(self) -> Mapping[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for root in self._roots:
            for path in files_below(root):
                name = module_name(path.name)
                if name:
                    found.setdefault(name, []).append(path)
        return found

    def find(self, release: str | None, module: str) -> tuple[str, bytes] | None:
        """As `ModuleShelf.find`; `release` does not choose, the caller compares the module's own."""
        del release
        for path in self._files.get(module.replace("-", "_"), ()):
            with open_regular(path) as file:
                return str(path), read_bounded(file, self._limits.in_memory, name=str(path))
        return None

    def names(self, release: str | None) -> frozenset[str]:
        """As `ModuleShelf.names`."""
        del release
        return frozenset(self._files)

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """As `ModuleShelf.builtin`."""
        del release
        for root in self._roots:
            path = root / "modules.builtin"
            if path.is_file():
                with open_regular(path) as file:
                    return _builtin_names(read_bounded(file, MOST_LIST, name=str(path)))
        return None


def files_below(root: Path) -> Iterator[Path]:
    """Every file below `root`, sorted, links to folders not followed, as far as folders may be read."""
    count = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > MOST_FILES:
                return
            yield Path(folder, name)
