# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder held open: what is read and written in it is found through its descriptor, never through its path again.

Whoever may rename a folder on the way can put another one in its place between two uses of a path; a descriptor goes
on meaning the folder that was opened. A name here is one component: no slash, no `..`. The last component is never
followed when it is a link, only regular files are opened, and nothing that blocks is waited for.

What the system refuses is an `OSError`; what is there and is not what was asked for is `BadInput`.
"""

import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Self

from ejectable.errors import BadInput, DamagedInput, Denied
from ejectable.intake.bounded import read_at_most
from ejectable.intake.reasons import kind_of_file

__all__ = ["LEFTOVER", "MAX_ENTRIES", "Directory", "open_here"]

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO waits for its other end, and a tape or a serial line for itself.
ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
MAX_ENTRIES = 65536
OTHERS_WRITE = 0o022
PERMISSIONS = 0o777  # no set-uid, no set-gid, no sticky bit is ever given to a file
# What a write that was killed leaves behind; nobody else names files like this.
LEFTOVER = re.compile(r"\.ejectable-[0-9a-f]{16}")
OLD_S = 3600.0


class Directory:
    """An open folder; a context manager that closes it. `name` is what to call it in a message."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a folder by its path, links followed: the caller answers for the way to it."""
        return cls(os.open(path, FOLDER), os.fspath(path))

    @classmethod
    def make(cls, path: str | os.PathLike[str], *, mode: int = 0o700) -> Self:
        """Open a folder by its path and make what is missing of it; links are followed where they lead to a folder."""
        try:
            return cls.open(path)
        except FileNotFoundError:
            above, name = os.path.split(os.path.abspath(path))  # noqa: PTH100  (a path that is no longer looked at)
            with cls.make(above, mode=mode) as folder:
                return folder.enter(name, make=True, mode=mode)

    @classmethod
    def ours(cls, base: str | os.PathLike[str], *below: str, make: bool = False, mode: int = 0o700) -> Self:
        """Open the folder `below` `base` that only this user (or root) may have made, and nobody else may write in.

        Links lead to `base`, and no further. Raises `Denied` where somebody else owns one of the folders, or may write
        in one below `base`: a cache, a record or a lock in it would be theirs. `make` makes those that are missing.
        """
        here = cls.open(base)
        try:
            here.check_owner(shared=True)
            for name in below:
                inner = here.enter(name, make=make, mode=mode)
                here.close()
                here = inner
                here.check_owner()
        except BaseException:
            here.close()
            raise
        return here

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; once is enough, twice does no harm."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def check_owner(self, *, shared: bool = False) -> None:
        """Raise `Denied` unless this user or root owns the folder and, unless `shared`, nobody else may write in it."""
        about = os.fstat(self.descriptor)
        if about.st_uid not in (0, os.geteuid()) or (about.st_mode & OTHERS_WRITE and not shared):
            raise Denied(
                f"{self.name}: another user owns this folder or may write in it.", hint="Use a folder of your own."
            )

    # Looking

    def list(self, most: int = MAX_ENTRIES) -> list[str]:
        """The names in the folder, sorted. Raises `DamagedInput` where there are more than `most`."""
        names: list[str] = []
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                if len(names) >= most:
                    raise DamagedInput(f"more than {most} files in it", path=self.name)
                names.append(entry.name)
        return sorted(names)

    def lstat(self, name: str) -> os.stat_result | None:
        """What stands under a name, a link itself and not what it leads to; `None` where there is nothing."""
        try:
            return os.stat(_one(name), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, name: str) -> str:
        """Where a link leads, as it is written in it."""
        return os.readlink(_one(name), dir_fd=self.descriptor)

    def enter(self, name: str, *, make: bool = False, mode: int = 0o755) -> Self:
        """Open a folder in this one, never through a link; `make` makes it where it is missing."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(_one(name), mode & PERMISSIONS, dir_fd=self.descriptor)
        descriptor = os.open(_one(name), FOLDER | os.O_NOFOLLOW, dir_fd=self.descriptor)
        return type(self)(descriptor, f"{self.name.rstrip('/')}/{name}")

    # Reading

    def open_file(self, name: str) -> BinaryIO:
        """Open a regular file for reading. Raises `BadInput` for a link, a FIFO, a device or a folder."""
        descriptor = self._regular(name, os.O_RDONLY)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")

    def read(self, name: str, limit: int) -> bytes:
        """The content of a regular file. Raises `DamagedInput` where it holds more than `limit` bytes."""
        with self.open_file(name) as file:
            data = read_at_most(file, limit + 1)
        if len(data) > limit:
            raise DamagedInput(f"larger than the limit of {limit} bytes", path=self._place(name))
        return data

    # Writing

    def write(self, name: str, data: bytes, *, mode: int = 0o644, lasting: bool = True) -> None:
        """Write a file aside and rename it into place: readers see the old file or the new one, never a part.

        Root leaves a file to whom it belongs. `lasting` makes the rename outlive a power cut.
        Raises `Denied` where somebody put another file in its place meanwhile.
        """
        aside = f".ejectable-{secrets.token_hex(8)}"
        old = self.lstat(name)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | ALWAYS, 0o600, dir_fd=self.descriptor)
        try:
            _write_all(descriptor, data)
            if os.geteuid() == 0 and old is not None and stat.S_ISREG(old.st_mode):
                mine = os.fstat(descriptor)
                if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):  # vfat refuses to be told an owner
                    os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, mode & PERMISSIONS)  # after the owner, who loses bits by changing
            os.fsync(descriptor)
            os.rename(aside, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            self._check_same(name, descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside, dir_fd=self.descriptor)
            raise
        finally:
            os.close(descriptor)
        if lasting:
            self.sync()

    def append(self, name: str, data: bytes, *, mode: int = 0o640) -> None:
        """Add to the end of a regular file that has no second name, in one write; it is made where it is missing."""
        descriptor = self._regular(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode, alone=True)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def set(self, name: str, data: bytes) -> None:
        """Write into a file in place, as the kernel's own files want it (procfs, sysfs); never makes one."""
        descriptor = self._regular(name, os.O_WRONLY, alone=True)
        try:
            if os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, 0)
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a file or a link; nothing happens where there is none."""
        with suppress(FileNotFoundError):
            os.unlink(_one(name), dir_fd=self.descriptor)

    def rename(self, name: str, new: str, into: "Directory | None" = None) -> None:
        """Rename a file, within this folder or into another one of the same file system."""
        there = self.descriptor if into is None else into.descriptor
        os.rename(_one(name), _one(new), src_dir_fd=self.descriptor, dst_dir_fd=there)

    def remove_folder(self, name: str, *, filled: bool = False) -> None:
        """Remove a folder: an empty one, or (`filled`) with all that is below it, no link followed."""
        if filled:
            # rmtree goes by descriptors where the system has them, as Linux has.
            shutil.rmtree(_one(name), dir_fd=self.descriptor)
        else:
            os.rmdir(_one(name), dir_fd=self.descriptor)

    def sweep(self, pattern: re.Pattern[str], *, keep: int) -> int:
        """Remove the oldest regular files whose whole name fits `pattern`, down to `keep`; says how many went."""
        found: list[tuple[int, str]] = []
        for name in self.list():
            if pattern.fullmatch(name):
                about = self.lstat(name)
                if about is not None and stat.S_ISREG(about.st_mode):
                    found.append((about.st_mtime_ns, name))
        gone = [name for _, name in sorted(found)[: max(0, len(found) - keep)]]
        for name in gone:
            self.remove(name)
        return len(gone)

    def sweep_leftovers(self, *, older_than_s: float = OLD_S) -> int:
        """Remove what writes that were killed left behind; says how many. A younger one may still be at work."""
        gone = 0
        for name in self.list():
            about = self.lstat(name) if LEFTOVER.fullmatch(name) else None
            if about is None or not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
                continue
            if time.time() - about.st_mtime >= older_than_s:
                self.remove(name)
                gone += 1
        return gone

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold the lock file `name`. Raises `BlockingIOError` where somebody else holds it, unless `wait`."""
        descriptor = self._regular(name, os.O_RDWR | os.O_CREAT, 0o600, alone=True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Make what was renamed and removed here last through a power cut (fsync(2), notes on directories)."""
        os.fsync(self.descriptor)

    # How it is done

    def _regular(self, name: str, flags: int, mode: int = 0, *, alone: bool = False) -> int:
        """A descriptor of a regular file; `alone` asks that it has no second name, which may be anybody's."""
        return open_here(
            _one(name), flags, mode, alone=alone, dir_fd=self.descriptor, links=False, shown=self._place(name)
        )

    def _check_same(self, name: str, descriptor: int) -> None:
        now, written = self.lstat(name), os.fstat(descriptor)
        if now is None or (now.st_dev, now.st_ino) != (written.st_dev, written.st_ino):
            raise Denied(
                f"{self._place(name)}: somebody else put another file in its place.",
                hint="Use a folder in which only you may write.",
            )

    def _place(self, name: str) -> str:
        return f"{self.name.rstrip('/')}/{name}"


def open_here(
    path: str,
    flags: int,
    mode: int = 0,
    *,
    alone: bool = False,
    dir_fd: int | None = None,
    links: bool,
    shown: str | None = None,
) -> int:
    """A non-blocking descriptor of a regular file. Raises `BadInput` for anything else, `OSError` as open(2) does.

    It is looked at before it is opened: opening a device node may already do something (a watchdog starts, a tape
    rewinds). It is looked at again afterwards, for it may have been replaced between the two.
    """
    where = shown or path

    def check(about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise BadInput(f"expected a regular file, found {kind_of_file(about.st_mode)}", path=where)
        if alone and about.st_nlink != 1:
            raise BadInput("expected a file with one name, found one with more (hard links)", path=where)

    try:
        check(os.stat(path, dir_fd=dir_fd, follow_symlinks=links))
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    always = ALWAYS & ~os.O_NOFOLLOW if links else ALWAYS
    descriptor = os.open(path, flags | always, mode & PERMISSIONS, dir_fd=dir_fd)
    return _checked(descriptor, check)


def _checked(descriptor: int, check: Callable[[os.stat_result], None]) -> int:
    try:
        check(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _one(name: str) -> str:
    """The name, where it is one component of a path."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BadInput(f"expected the name of a file in a folder, found {name!r}")
    return name


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
