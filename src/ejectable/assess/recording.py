# SPDX-License-Identifier: GPL-2.0-or-later
"""A root that notes each question it is asked and the answer it gives: what a verdict that is kept rests on.

The note is taken while reading, so nothing that counted can be forgotten, names that were *not* there included.
A file's content is noted by the inode and its times on the live host, where only root can set the time of the last
change. In any other tree whoever made it chooses those, so the bytes themselves are noted.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

import msgspec

from ejectable import host
from ejectable.errors import EjectableError, Missing
from ejectable.intake import open_regular, read_bounded
from ejectable.model import Doubt, DoubtKind

__all__ = ["Mark", "Recording", "holds"]

CHUNK = 1 << 20


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A question that was asked of a root, and a digest of its answer."""

    question: str  # resolve, list, link, read, content
    path: str
    answer: str


class Recording(host.Root):
    """A root whose answers are noted in `marks`; `unstable` holds the files that changed while they were read."""

    def __init__(self, root: host.Root) -> None:
        super().__init__(root.path)
        self.denied = root.denied
        self.live = root.live
        self._root = root
        self._marks: dict[tuple[str, str], str] = {}
        self.unstable: list[Doubt] = []

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What was asked so far."""
        return tuple(Mark(question, path, answer) for (question, path), answer in self._marks.items())

    def _note(self, question: str, path: str, answer: object) -> None:
        self._marks[question, path] = _digest(answer)

    def resolve(self, path: str) -> str | None:
        """As `host.Root.resolve`."""
        answer = self._root.resolve(path)
        self._note("resolve", path, answer)
        return answer

    def read(self, path: str, limit: int = host.root.DEFAULT_LIMIT) -> bytes | None:
        """As `host.Root.read`."""
        answer = self._root.read(path, limit)
        self._note(f"read {limit}", path, answer)
        return answer

    def list(self, path: str) -> tuple[str, ...] | None:
        """As `host.Root.list`."""
        answer = self._root.list(path)
        self._note("list", path, answer)
        return answer

    def link(self, path: str) -> str | None:
        """As `host.Root.link`."""
        answer = self._root.link(path)
        self._note("link", path, answer)
        return answer

    def content(self, path: str, limit: int) -> bytes:
        """All of a file, of at most `limit` bytes. Raises an `EjectableError` where it cannot be read."""
        with self.stream(path) as stream:
            return read_bounded(stream, limit, name=path)

    @contextmanager
    def stream(self, path: str) -> Iterator[BinaryIO]:
        """A file to be read piece by piece. Raises an `EjectableError` where it cannot be opened."""
        there = self.file(path)
        if there is None:
            denied = any(path.startswith(known) for known in self.denied)
            raise Missing(f"{path}: may not be read by this user." if denied else f"{path}: no such file.")
        try:
            file = open_regular(there)
        except EjectableError as error:
            self._note("content", path, None)
            raise type(error)(f"{path}: cannot be read.", hint=error.hint) from error.__cause__
        with closing(file):
            before = _identity(file)
            hashing = None if self.live else _Hashing(file)
            try:
                yield file if hashing is None else io.BufferedReader(hashing, CHUNK)
            finally:
                answer = before if hashing is None else hashing.finish()
                self._note("content", path, answer)
                if _identity(file) != before:
                    self.unstable.append(Doubt(DoubtKind.CHANGING, path, f"{path} changed while it was read."))


def holds(root: host.Root, marks: Sequence[Mark]) -> bool:
    """Whether a root gives the answers that were noted, to each question."""
    return all(_answer(root, mark) == mark.answer for mark in marks)


def _answer(root: host.Root, mark: Mark) -> str | None:
    question, _, limit = mark.question.partition(" ")
    if question == "resolve":
        return _digest(root.resolve(mark.path))
    if question == "list":
        return _digest(root.list(mark.path))
    if question == "link":
        return _digest(root.link(mark.path))
    if question == "read":
        return _digest(root.read(mark.path, int(limit)))
    there = root.file(mark.path)
    if there is None:
        return None
    try:
        with open_regular(there) as file:
            return _digest(_identity(file) if root.live else _Hashing(file).finish())
    except EjectableError:
        return _digest(None)


def _digest(answer: object) -> str:
    raw = answer if isinstance(answer, bytes) else repr(answer).encode("utf-8", "surrogateescape")
    return hashlib.sha256(type(answer).__name__.encode() + b" " + raw).hexdigest()


def _identity(file: BinaryIO) -> str:
    about = os.fstat(file.fileno())
    return f"{about.st_dev}:{about.st_ino}:{about.st_size}:{about.st_mtime_ns}:{about.st_ctime_ns}"


class _Hashing(io.RawIOBase):
    """A file that is hashed as it is read, to its end even where its reader stops before."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._hash.update(data)
        buffer[: len(data)] = data
        return len(data)

    def finish(self) -> str:
        while data := self._file.read(CHUNK):
            self._hash.update(data)
        return self._hash.hexdigest()
