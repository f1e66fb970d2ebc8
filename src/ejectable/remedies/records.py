# SPDX-License-Identifier: GPL-2.0-or-later
"""What was changed, written down before it was done: so that it can be taken back, even after a power cut.

One JSON file per change below /var/lib/ejectable/changes, of the machine that is changed. A step is on the disk before
it is made; a record that is still `open` when nobody holds the lock tells of a change that was interrupted.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from ejectable import host
from ejectable.errors import DamagedInput, Missing
from ejectable.intake import write_atomically

__all__ = ["CommandStep", "FileStep", "Record", "Records", "Step"]

MAX_RECORD = 32 << 20
MAX_RECORDS = 4096


class FileStep(msgspec.Struct, frozen=True, tag="file", forbid_unknown_fields=True):
    """A file that was written or removed. Contents are bytes (base64 in the record); `None` is "no such file"."""

    path: str  # from the root
    before: bytes | None
    after: bytes | None
    mode_before: int | None = None
    made_folders: tuple[str, ...] = ()  # that were missing, the outermost first
    in_place: bool = False  # a file of the kernel's (sysctl), which cannot be replaced by renaming


class CommandStep(msgspec.Struct, frozen=True, tag="command", forbid_unknown_fields=True):
    """A program that was run, and the one that takes its effect back (empty: nothing does, or nothing must)."""

    argv: tuple[str, ...]
    undo: tuple[str, ...]
    what: str
    while_there: str = ""  # a path: without it there is nothing to take back


Step = FileStep | CommandStep


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change. `open`: begun, and not known to have ended; `done`: can be undone; `undone`: was."""

    number: int
    remedy: str
    started: str  # RFC 3339
    state: Literal["open", "done", "undone"]
    steps: tuple[Step, ...] = ()


class Records:
    """The records of the machine below one root; `folder` keeps them elsewhere (a user's own source tree)."""

    def __init__(self, root: host.Root, folder: Path | None = None) -> None:
        self._root = root
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they are, for this process; made on demand by whoever writes. Raises `DamagedInput` for a trap."""
        # Resolved from the root, part by part: a captured tree may hold links to anywhere.
        base = self._root.resolve("/var/lib") or "/var/lib"
        folder = self._folder or Path(self._root.outside(f"{base}/ejectable"))
        with_links = [path for path in (folder, folder / "changes") if path.is_symlink()]
        if with_links:
            raise DamagedInput("expected a directory, found a symbolic link", path=str(with_links[0]))
        return folder

    def all(self) -> tuple[Record, ...]:
        """Every record that can be read, the oldest first; what is damaged is left out, and left alone."""
        found = []
        try:
            names = sorted((self.folder / "changes").glob("*.json"))[:MAX_RECORDS]
        except OSError:
            return ()
        for path in names:
            try:
                if stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size <= MAX_RECORD:
                    found.append(msgspec.json.decode(path.read_bytes(), type=Record))
            except (OSError, ValueError):
                continue
        return tuple(sorted(found, key=lambda record: record.number))

    def last_number(self) -> int:
        """The highest number in use, of damaged records too."""
        numbers = [int(path.stem) for path in (self.folder / "changes").glob("*.json") if path.stem.isdigit()]
        return max(numbers, default=0)

    def keep(self, record: Record) -> None:
        """Write a record whole, or raise `OSError` and leave the one before."""
        folder = self.folder / "changes"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(folder / f"{record.number:06}.json", msgspec.json.encode(record), mode=0o600)
        _sync(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; raises `Missing` while another one is under way."""
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise Missing(f"{self.folder} may not be written.", hint="Run it as root.") from error
        except OSError as error:
            raise Missing(f"{self.folder} cannot be written: {error.strerror}.", hint="Make room for it.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Missing("Another `ejectable fix --apply` is under way.", hint="Wait until it is done.") from error
            yield
        finally:
            os.close(descriptor)


def _sync(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut (fsync(2), notes on directories)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
