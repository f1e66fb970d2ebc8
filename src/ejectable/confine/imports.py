# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that confined work turns out to need: it cannot open their files, so the parent hands it their code.

Where a module is a shared library, it must be loaded before the fence is closed: the parent imports it, and the work
begins again.
"""

import importlib
import importlib.util
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

from ejectable.confine.scarce import memory_is_scarce
from ejectable.errors import Ended

__all__ = ["TRY", "Absent", "NeedsImport", "bring_in", "code_of", "load"]

TRY = "Is there too little memory? Give it more, or read the same file on another machine."
# A child may be in the hands of whoever made the bytes: it names modules of ours, of the libraries that read bytes,
# and of the standard library without those that do something when they are imported.
OURS = frozenset(
    ("ejectable", "unicorn", "capstone", "elftools", "zstandard", "lz4", "lzallright", "debian", "rpmfile", "msgspec")
)
ACTIVE = frozenset(("antigravity", "this", "test", "idlelib", "turtledemo", "webbrowser", "site", "__main__"))
ABSENT, LIBRARY = "absent", "library"  # what the parent says of a module whose code it does not hand over


class NeedsImport(BaseException):
    """The work imports a module that is not loaded, and can only be loaded outside."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Handed:
    """A loader for code that the parent handed over; see `importlib.abc.Loader`."""

    def __init__(self, code: CodeType) -> None:
        self._code = code

    def create_module(self, _spec: ModuleSpec) -> None:
        """`None`: an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code, which is ours or the standard library's."""
        exec(self._code, module.__dict__)  # noqa: S102  (it is what importing a module means)


class Absent(set[str]):
    """Names of modules that were asked for and are not to be had."""

    def __init__(self) -> None:
        super().__init__()
        self._ask: Callable[[str], int | str | bool] = lambda _name: ABSENT

    def watch(self, ask: Callable[[str], int | str | bool]) -> None:
        """From here on, in this process, what is not loaded and imported comes from the parent, by `ask`."""
        self._ask = ask
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """`None` for what is built in, which the next finder has; see `importlib.abc.MetaPathFinder`."""
        del path, target
        if name in sys.builtin_module_names:
            return None
        answer = ABSENT if name in self else self._ask(name)
        if answer == ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if answer == LIBRARY:
            raise NeedsImport(name)
        with os.fdopen(int(answer), "rb") as file:
            package, origin, code = marshal.load(file)  # noqa: S302  (the parent wrote it)
        spec = ModuleSpec(name, _Handed(code), origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        return spec


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
    if not _may_be_had(name):
        absent.add(name)
        return
    try:
        load(name)
    except Ended:
        raise
    except Exception:  # noqa: BLE001  (whatever keeps it from being imported here kept it from there)
        absent.add(name)


def code_of(name: str) -> int | str:
    """For a child: a descriptor of a module's code, `LIBRARY` where it is no Python, `ABSENT` where there is none."""
    if not _may_be_had(name):
        return ABSENT
    try:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return ABSENT
        if not isinstance(spec.loader, SourceFileLoader):
            return LIBRARY
        code = spec.loader.get_code(name)
    except (ImportError, ValueError, SyntaxError):
        return ABSENT
    descriptor = os.memfd_create("module", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        marshal.dump((spec.submodule_search_locations is not None, spec.origin, code), file)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _may_be_had(name: str) -> bool:
    top = name.partition(".")[0]
    return top in OURS or (top in sys.stdlib_module_names and top not in ACTIVE)
