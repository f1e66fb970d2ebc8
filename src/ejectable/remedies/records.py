# SPDX-License-Identifier: GPL-2.0-or-later
"""The record of a change, written before the change is made, so that it can be undone even after a power cut.

One JSON file per change, in the folder that `state` names: on this machine, also for a change of an image. A step is on
the disk before it is made; a record that is still `open` when nobody holds the lock tells of an interrupted change.

A record is data: steps out of a closed set (`steps.Step`), with no command in it. One that holds anything else, or a
step that its remedy does not take, is no record: it is left out, and left alone.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from ejectable import host
from ejectable.errors import BadInput, EjectableError, Missing
from ejectable.intake import Directory
from ejectable.remedies import state
from ejectable.remedies.registry import reach_of
from ejectable.remedies.steps import FileStep, Reach, SetKernelValue, Step

__all__ = ["Record", "Records", "check_reach", "read_record"]

MAX_RECORD = 32 << 20
MAX_RECORDS = 4096
FOLDER = "changes"
FILE = re.compile(r"(\d{6,12})\.json", re.ASCII)
NAME = re.compile(r"[a-z][a-z-]{0,63}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change. `open`: begun, and not known to have ended; `done`: can be undone; `undone`: was."""

    format: Literal[2]
    number: int
    remedy: str
    started: str  # RFC 3339
    state: Literal["open", "done", "undone"]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        # Both are shown to people, the name in a command to paste.
        if not NAME.fullmatch(self.remedy) or not MOMENT.fullmatch(self.started):
            raise ValueError("this is no name of a remedy, or no time")


class _Any(msgspec.Struct):
    """Whatever a file in our folder says of its format."""

    format: int = 1


def check_reach(step: Step, reach: Reach, root: host.Root) -> None:
    """Raise `ValueError` for a step that a remedy does not take, or not in a tree: nothing is run for one."""
    if isinstance(step, SetKernelValue):
        allowed = step.path in reach.values and root.live
    elif isinstance(step, FileStep):
        allowed = reach.has_file(step.path)
    else:
        allowed = isinstance(step, reach.kinds) and root.live
    if not allowed:
        raise ValueError(f"{step.what}: not a step of this remedy")


def read_record(content: bytes, root: host.Root) -> Record:
    """The record in a file about the machine below `root`. Raises `ValueError` for what no remedy has written."""
    record = msgspec.json.decode(content, type=Record)
    for step in record.steps:
        check_reach(step, _reach(record.remedy), root)
    return record


class Records:
    """The records about the machine below one root."""

    def __init__(self, root: host.Root) -> None:
        self._root = root

    @property
    def folder(self) -> Path:
        """Where they are; made on demand by whoever writes. Raises `Missing` where others may write to it."""
        return state.checked(state.folder_of(self._root))

    def all(self) -> tuple[Record, ...]:
        """Every record that can be read, the oldest first."""
        found = []
        for _, content in self._contents():
            with suppress(ValueError):
                found.append(read_record(content, self._root))
        return tuple(sorted(found, key=lambda record: record.number))

    def outdated(self) -> tuple[str, ...]:
        """The paths of records in a format of an earlier version: they held commands, and nothing of them is run."""
        found = []
        for path, content in self._contents():
            with suppress(ValueError):
                if msgspec.json.decode(content, type=_Any).format < 2:
                    found.append(path)
        return tuple(found)

    def last_number(self) -> int:
        """The highest number in use, of damaged records too."""
        return max((int(match[1]) for match in map(FILE.fullmatch, self._names()) if match), default=0)

    def keep(self, record: Record) -> None:
        """Write a record whole, or raise `OSError` and leave the one before."""
        state.make(self.folder / FOLDER, mode=0o700)
        with Directory.open(self.folder / FOLDER) as there:
            there.check_owner()
            there.write(f"{record.number:06}.json", msgspec.json.encode(record), mode=0o600)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; raises `Missing` while another one is under way."""
        folder = self.folder
        with ExitStack() as held:
            self._lock(folder, held)
            self._sweep()
            yield

    def _lock(self, folder: Path, held: ExitStack) -> None:
        try:
            state.make(folder)
            there = held.enter_context(Directory.open(folder))
            held.enter_context(there.lock("lock"))
        except BlockingIOError as error:
            raise Missing("Another `ejectable fix --apply` is under way.", hint="Wait until it is done.") from error
        except PermissionError as error:
            raise Missing(f"{folder} may not be written.", hint="Run it as root.") from error
        except OSError as error:
            raise Missing(f"{folder} cannot be written: {error.strerror}.", hint="Make room for it.") from error

    def _sweep(self) -> None:
        """Remove what runs that were killed while they wrote a record have left beside it: we hold the lock."""
        with suppress(OSError), Directory.open(self.folder / FOLDER) as there:
            there.sweep_leftovers(older_than_s=0)

    def _names(self) -> list[str]:
        try:
            with Directory.open(self.folder / FOLDER) as there:
                return there.list()
        except OSError:
            return []

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        """(path, content) of each file that is this user's alone; others may be anybody's word."""
        folder = self.folder / FOLDER
        names = [name for name in self._names() if FILE.fullmatch(name)][:MAX_RECORDS]
        if not names:
            return
        with Directory.open(folder) as there:
            for name in names:
                with suppress(OSError, BadInput), there.open_file(name) as file:
                    about = os.fstat(file.fileno())
                    alone = about.st_uid == os.geteuid() and about.st_nlink == 1 and not about.st_mode & 0o022
                    if alone and about.st_size <= MAX_RECORD:
                        yield f"{folder}/{name}", file.read(MAX_RECORD)


def _reach(remedy: str) -> Reach:
    try:
        return reach_of(remedy)
    except EjectableError as error:
        raise ValueError(error.message) from error
