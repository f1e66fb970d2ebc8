# SPDX-License-Identifier: GPL-2.0-or-later
"""What was read below a root, and what could not be: recorded while reading, so that nothing is listed by hand."""

import hashlib
import os
from collections.abc import Callable
from typing import Literal

import msgspec

from ejectable.model import Doubt, DoubtKind

__all__ = ["Act", "Recording", "Seen", "hash_of", "hash_of_file", "identity_of"]

MAX_DOUBTS = 1024
MAX_SEEN = 65536

# read: the beginning of a file; open: a file as a whole; list: the names in a folder; link: a link's own text;
# node: what kind of file is there, links followed; resolve: the path without links.
Act = Literal["read", "open", "list", "link", "node", "resolve"]


class Seen(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One thing that was looked at, and what tells it from what it may be the next time.

    `state` is a hash of what was read; for a large file of the live machine, which file it was (device, inode, size,
    times of writing and change); or "absent", or why it could not be had.
    """

    act: Act
    path: str
    limit: int  # of `read`, in bytes
    state: str


class Recording:
    """Everything that was looked at while it was open (`Root.recording()`), each thing once, and the doubts."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Act, str, int], str] = {}
        self._doubts: dict[Doubt, None] = {}
        self._opened: dict[str, str] = {}
        self.full = False

    def see(self, act: Act, path: str, limit: int, state: str) -> None:
        """Note that `path` was looked at. What is seen twice and differs was changed meanwhile: a doubt."""
        key = (act, path, limit)
        if key not in self._seen and len(self._seen) >= MAX_SEEN:
            if not self.full:
                self.doubt(Doubt(DoubtKind.BOUND, path, f"More than {MAX_SEEN} files were looked at."))
            self.full = True
            return
        self._seen[key] = state

    def opened(self, path: str, about: os.stat_result) -> None:
        """Note which file was opened; see `check`."""
        self._opened.setdefault(path, identity_of(about))

    def check(self, now: Callable[[str], os.stat_result | None]) -> None:
        """Leave a doubt for each file that was opened and is another one, or was written to, by `now`."""
        for path, before in self._opened.items():
            about = now(path)
            if about is None or identity_of(about) != before:
                self.doubt(Doubt(DoubtKind.CHANGING, path, f"{path} changed while it was read."))

    def doubt(self, doubt: Doubt) -> None:
        """Note that something was not seen."""
        if len(self._doubts) < MAX_DOUBTS:
            self._doubts.setdefault(doubt)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What could not be seen, in the order in which it was met; at most 1,024."""
        return tuple(self._doubts)

    @property
    def changed(self) -> tuple[Doubt, ...]:
        """The doubts about files that were changed or replaced before the recording ended."""
        return tuple(doubt for doubt in self._doubts if doubt.kind is DoubtKind.CHANGING)

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What was looked at, sorted: the same for the same files, whatever the order they were read in."""
        return tuple(sorted(Seen(*key, state) for key, state in self._seen.items()))

    def key(self) -> str | None:
        """A hash of all that was seen: equal where all that was read is what it was. `None` where it was too much."""
        if self.full:
            return None
        # A name may be no UTF-8; repr() escapes what a file system leaves of it.
        return hashlib.sha256(repr([(*key, self._seen[key]) for key in sorted(self._seen)]).encode()).hexdigest()


def hash_of(data: bytes) -> str:
    """A content as a state."""
    return hashlib.sha256(data).hexdigest()


def hash_of_file(descriptor: int) -> str:
    """The content of an open file as a state; the position in it is left alone."""
    found = hashlib.sha256()
    offset = 0
    while part := os.pread(descriptor, 1 << 20, offset):
        found.update(part)
        offset += len(part)
    return found.hexdigest()


def identity_of(about: os.stat_result) -> str:
    """What tells a file from what it was before, without reading it."""
    return f"{about.st_dev}:{about.st_ino}:{about.st_size}:{about.st_mtime_ns}:{about.st_ctime_ns}"
