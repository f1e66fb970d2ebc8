# SPDX-License-Identifier: GPL-2.0-or-later
"""An archive as files by name, read only as far as somebody asks, and nothing of it written to disk.

Packages are long: the kernel comes first, hundreds of megabytes of modules follow. An `Archive` walks on when a
member is asked for that it has not met, remembers what is likely to be asked for next, and starts over for the
rest.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator

import msgspec

from ejectable.errors import DamagedInput, EjectableError
from ejectable.intake import Limits
from ejectable.intake.module_files import module_name
from ejectable.kernel.containers.exact import Exact

__all__ = ["Archive", "Entry", "clean_name", "entry_of", "keep_modules"]

# Bounds on the list of names that is held in memory.
MOST_NAMES = 1 << 18
MOST_NAME_BYTES = 64 << 20

# What is kept when it is met. Anything else that is asked for later costs another walk.
KEPT = re.compile(
    r"(?:.*/)?(?:"
    r"(?:vmlinu[xz]|bzImage|Image|config|\.config|initrd)[^/]*"
    r"|linux|[^/]+\.efi"
    r"|modules\.(?:builtin|dep)"
    r"|virtio[-_]pci\.ko(?:\.\w+)?"
    r"|changelog[^/]*"
    r")"
)
_modules: set[str] = set()


def keep_modules(names: Iterable[str]) -> None:
    """Keep these modules, too, when an archive is walked through: they will be asked for."""
    _modules.update(name.replace("-", "_") for name in names)


class Entry(msgspec.Struct, frozen=True):
    """A regular file in an archive. `read` works until the next entry is asked for."""

    name: str
    size: int
    read: Callable[[], bytes]


def clean_name(raw: str) -> str:
    """A member's name relative to the root, without `.`; `..` cannot climb above the root."""
    parts: list[str] = []
    for part in raw.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Archive:
    """The regular files of an archive by name, read on demand; `walk` begins a walk from the start."""

    def __init__(self, walk: Callable[[], Iterator[Entry]], *, name: str, limits: Limits) -> None:
        self._walk = walk
        self.name = name
        self._limits = limits
        self._entries: Iterator[Entry] | None = None
        self._names: list[str] = []
        self._name_bytes = 0
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0
        self._error: EjectableError | None = None

    def find(self, pattern: re.Pattern[str]) -> str | None:
        """The first member whose whole name matches; raises `DamagedInput` if the archive breaks before it."""
        return next(self.find_all(pattern), None)

    def find_all(self, pattern: re.Pattern[str]) -> Iterator[str]:
        """Every member whose whole name matches, in the archive's order."""
        met = 0
        while met < len(self._names) or self._advance():
            name = self._names[met]
            met += 1
            if pattern.fullmatch(name):
                yield name

    def read(self, name: str) -> bytes:
        """The content of a member that `find` gave.

        Of several of one name it is the last that was met: who unpacks the archive is left with that one.
        """
        if name in self._kept:
            return self._kept[name]
        found = None
        for entry in self._walk():
            if entry.name == name:
                found = self._read(entry)
        if found is None:
            raise DamagedInput(f"{name} is no longer there", path=self.name)
        return found

    def entries(self) -> Iterator[Entry]:
        """A walk of its own over all regular files, front to back, for who wants many of them."""
        return self._walk()

    def _advance(self) -> bool:
        """Walk to the next member; whether there was one."""
        if self._error is not None:
            raise copy.copy(self._error)
        if self._entries is None:
            self._entries = self._walk()
        try:
            entry = next(self._entries, None)
            if entry is None:
                return False
            self._name_bytes += len(entry.name)
            if len(self._names) >= MOST_NAMES or self._name_bytes > MOST_NAME_BYTES:
                raise DamagedInput("it has more members than any kernel package", path=self.name)
            self._names.append(entry.name)
            if KEPT.fullmatch(entry.name) or module_name(entry.name) in _modules:
                self._keep(entry)
        except EjectableError as error:
            # A copy, since the error itself holds on to every frame it passed, and so to open files.
            self._error = copy.copy(error)
            raise
        return True

    def _keep(self, entry: Entry) -> None:
        self._kept_bytes -= len(self._kept.pop(entry.name, b""))
        if self._kept_bytes + entry.size <= self._limits.in_memory:
            self._kept[entry.name] = self._read(entry)
            self._kept_bytes += entry.size

    def _read(self, entry: Entry) -> bytes:
        if entry.size > self._limits.in_memory:
            raise DamagedInput(
                f"{entry.name} has {entry.size} bytes, more than the limit of {self._limits.in_memory}",
                path=self.name,
            )
        return entry.read()


def entry_of(source: Exact, name: str, size: int) -> tuple[Entry, Callable[[], None]]:
    """An entry whose content comes next in `source`, and what passes over the part that was not read."""
    start = source.position
    what = f"member {name[:200]}"

    def read() -> bytes:
        if source.position != start:
            raise DamagedInput(f"{what} was already passed", path=source.name)
        return source.take(size, what)

    return Entry(name, size, read), lambda: source.skip(start + size - source.position, what)
