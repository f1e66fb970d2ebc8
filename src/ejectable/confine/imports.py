# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that confined work turns out to need: it cannot open their files, so the parent imports them beforehand."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from ejectable.confine.scarce import memory_is_scarce
from ejectable.errors import Ended

__all__ = ["TRY", "Absent", "NeedsImport", "bring_in", "load"]

TRY = "Give it more memory, or judge the same file on another machine."

# A child may be in the hands of whoever made the bytes: it names modules of ours, of the libraries that read bytes,
# and of the standard library without those that do something when they are imported.
OURS = frozenset(
    ("ejectable", "unicorn", "capstone", "elftools", "zstandard", "lz4", "lzallright", "debian", "rpmfile", "msgspec")
)
ACTIVE = frozenset(("antigravity", "this", "test", "idlelib", "turtledemo", "webbrowser", "site", "__main__"))


class NeedsImport(BaseException):
    """The work imports a module that is not loaded."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Absent(set[str]):
    """Names of modules that were asked for and are not to be had."""

    def watch(self) -> None:
        """From here on, in this process, an import of what is not loaded raises `NeedsImport`."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """`None` for what is built in, which the next finder has; see `importlib.abc.MetaPathFinder`."""
        del path, target
        if name in sys.builtin_module_names:
            return None
        if name in self:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        raise NeedsImport(name)


def load(name: str) -> None:
    """Import a module. Raises `Ended` where there is too little memory for it, which each library says differently."""
    try:
        importlib.import_module(name)
    except Exception as error:
        if isinstance(error, MemoryError) or memory_is_scarce():
            raise Ended(f"There is too little memory to load {name.partition('.')[0]}.", hint=TRY) from error
        raise


def bring_in(name: str, absent: Absent) -> None:
    """Import a module for the next child, or note that there is none. Raises `Ended` for want of memory."""
    top = name.partition(".")[0]
    if top in OURS or (top in sys.stdlib_module_names and top not in ACTIVE):
        try:
            load(name)
        except Ended:
            raise
        except Exception:  # noqa: BLE001  (whatever keeps it from being imported here kept it from there)
            absent.add(name)
        return
    absent.add(name)
