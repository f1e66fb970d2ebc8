# SPDX-License-Identifier: GPL-2.0-or-later
"""What was changed, written down before it was done: so that it can be taken back, even after a power cut.

One JSON file per change, in the folder that `state` names: on this machine, also for a change of an image. A step is on
the disk before it is made; a record that is still `open` when nobody holds the lock tells of an interrupted change.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from ejectable import host
from ejectable.errors import Missing
from ejectable.intake import write_atomically
from ejectable.remedies import state

__all__ = ["CommandStep", "FileStep", "Record", "Records", "Step"]

MAX_RECORD = 32 << 20
MAX_RECORDS = 4096
NAME = re.compile(r"[a-z][a-z-]{0,63}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
LEFTOVER = re.compile(r"\.\d{6,}\.json\.[a-z0-9_]{8}")  # as tempfile names what it writes aside


class FileStep(msgspec.Struct, frozen=True, tag="file", forbid_unknown_fields=True):
    """A file that was written or removed. Contents are bytes (base64 in the record); `None` is "no such file"."""

    path: str  # from the root
    before: bytes | None
    after: bytes | None
    mode_before: int | None = None
    made_folders: tuple[str, ...] = ()  # that were missing, the outermost first
    in_place: bool = False  # a file of the kernel's (sysctl), which cannot be replaced by renaming

    def __post_init__(self) -> None:
        for path in (self.path, *self.made_folders):
            parts = path.split("/")
            if parts[0] or "\0" in path or not all(part not in ("", ".", "..") for part in parts[1:]):
                raise ValueError(f"{path!r} is no path below the root")
        if self.mode_before is not None and not 0 <= self.mode_before <= 0o777:
            raise ValueError(f"{self.mode_before:o} is no mode that is given to a file")


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

    def __post_init__(self) -> None:
        # Both are shown to people, the name in a command to paste.
        if not NAME.fullmatch(self.remedy) or not MOMENT.fullmatch(self.started):
            raise ValueError("this is no name of a remedy, or no time")


class Records:
    """The records about the machine below one root."""

    def __init__(self, root: host.Root) -> None:
        self._root = root

    @property
    def folder(self) -> Path:
        """Where they are; made on demand by whoever writes. Raises `Missing` where others may write to it."""
        return state.checked(state.folder_of(self._root))

    def all(self) -> tuple[Record, ...]:
        """Every record that can be read, the oldest first; what is damaged or not ours is left out, and left alone."""
        found = []
        try:
            names = sorted((self.folder / "changes").glob("*.json"))[:MAX_RECORDS]
        except OSError:
            return ()
        for path in names:
            try:
                content = _ours(path)
                if content is not None:
                    found.append(msgspec.json.decode(content, type=Record))
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
        folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(folder / f"{record.number:06}.json", msgspec.json.encode(record), mode=0o600)
        _sync(folder)

    def _sweep(self) -> None:
        """Remove what runs that were killed while they wrote a record have left beside it."""
        for path in (self.folder / "changes").glob(".*.json.*"):
            if LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; raises `Missing` while another one is under way."""
        try:
            _make(self.folder)
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
            self._sweep()
            yield
        finally:
            os.close(descriptor)


def _ours(path: Path) -> bytes | None:
    """What a record's file holds; `None` for what is no file of this user's alone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        alone = about.st_uid == os.geteuid() and about.st_nlink == 1 and not about.st_mode & 0o022
        if not stat.S_ISREG(about.st_mode) or not alone or about.st_size > MAX_RECORD:
            return None
        return file.read(MAX_RECORD)


def _make(folder: Path) -> None:
    """Make a folder and those above it, writable by nobody else whatever the umask is."""
    for path in [*reversed(folder.parents), folder]:
        path.mkdir(mode=0o755, exist_ok=True)


def _sync(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut (fsync(2), notes on directories)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
