# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system seen from a root of its own: the live host's `/`, or a tree somewhere below.

Symbolic links are followed and stay inside, as after chroot(2): a captured tree may hold links to anywhere, sysfs is
made of links, and neither may lead out of the root. Every read is bounded, only regular files are opened.

What is simply not there is answered with `None`. What is there and could not be had (a permission, a link that dangles
or goes in a circle, a FIFO in place of a file, a bound that was reached) is answered with `None` as well, and leaves a
`Doubt`: in `Root.doubts`, and in each `Root.recording()` that is open.

    with root.recording() as recording:
        devices = read_devices(root)
    recording.doubts      # what was not seen, as values
    recording.key()       # a hash of what was read: the key of a cache
    recording.seen        # the same one by one, to be kept beside a verdict ...
    root.unchanged(seen)  # ... and to be asked about before the verdict is believed again
"""

import contextlib
import errno
import itertools
import os
import secrets
import stat
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ejectable.confine import ask, confined
from ejectable.errors import BadInput, Denied, EjectableError, Missing
from ejectable.intake.beneath import Beneath
from ejectable.intake.bounded import read_bounded
from ejectable.intake.directory import MAX_ENTRIES, Directory
from ejectable.intake.reasons import as_ours, doubt_of
from ejectable.intake.seen import Act, Recording, Seen, hash_of, hash_of_file, identity_of
from ejectable.model import Doubt, DoubtKind

__all__ = ["Root"]

DEFAULT_LIMIT = 1 << 20
MAX_HASHED = 1 << 30  # beyond it, a file of a tree is read anew each time
SMALL = 1 << 16
MAX_FILES = 131072
MAX_DEPTH = 64
ABSENT = "absent"
FROM_THE_KERNEL = ("/proc/", "/sys/")

Names = list[str]
Folder = tuple[str, Names, Names]


class Root:
    """The files below one folder. Paths are given from it, with or without a leading slash; answers are inside it."""

    def __init__(self, path: str | os.PathLike[str] = "/") -> None:
        self.path = Path(path)
        self.live = self.path == Path("/")
        where = os.path.abspath(self.path)  # noqa: PTH100  (links stay)
        try:
            # O_PATH: a folder that may be entered and not listed is a root all the same.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._top = int(ask("top", where)) if confined() else os.open(self.path, flags)
        except PermissionError as error:
            raise Denied(f"{path}: may not be read by this user.", hint="Run it as root.") from error
        except NotADirectoryError as error:
            if self.path.exists():
                raise BadInput("expected a directory, the root of a machine's files", path=str(path)) from error
            raise Missing(f"{path}: no such directory.", hint="Give the root of a mounted or captured tree.") from error
        except (OSError, ValueError) as error:
            raise Missing(f"{path}: no such directory.", hint="Give the root of a mounted or captured tree.") from error
        weakref.finalize(self, os.close, self._top)
        self._beneath = Beneath(self._top, where)
        self._all = Recording()
        self._recordings: list[Recording] = []

    # What was seen, and what was not

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What could not be seen since this root was opened, as values; at most 1,024."""
        return self._all.doubts

    @property
    def denied(self) -> set[str]:
        """The paths that this user may not read: root would see more."""
        return {doubt.where for doubt in self._all.doubts if doubt.kind is DoubtKind.PERMISSION}

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record what is read, and what could not be, until the block ends; recordings may be nested."""
        recording = Recording()
        self._recordings.append(recording)
        try:
            yield recording
        finally:
            self._recordings.remove(recording)
            recording.check(self._now)

    def unchanged(self, seen: Iterable[Seen]) -> bool:
        """Whether everything that was seen then is seen now; looks at each thing again."""
        for one in seen:
            with self.recording() as again:
                self._look_again(one)
            if one not in again.seen:
                return False
        return True

    def note(self, doubt: Doubt) -> None:
        """Leave a doubt that a confined process met below this root."""
        self._doubt(doubt)

    # Reading

    def read(self, path: str, limit: int = DEFAULT_LIMIT, *, head: bool = False) -> bytes | None:
        """The first `limit` bytes of a regular file; `None` if there is none or it may not be read.

        A file that goes on behind the limit leaves a doubt, unless only its `head` is wanted.
        """
        state = ABSENT
        try:
            descriptor, _ = self._beneath.file(path)
            try:
                data = _at_most(descriptor, limit if head else limit + 1)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            state = self._refused(error, path)
            return None
        else:
            if len(data) > limit:
                data = data[:limit]
                self._doubt(Doubt(DoubtKind.BOUND, _from_top(path), f"{path} is longer than {limit} bytes."))
            state = hash_of(data) if self._recordings else ""
            return data
        finally:
            self._see("read", path, state, limit)

    def open(self, path: str) -> BinaryIO:
        """Open a regular file for reading. Raises `Missing`, `Denied` or `BadInput`, and leaves a doubt as `read`."""
        try:
            descriptor, about = self._beneath.file(path)
        except (OSError, ValueError) as error:
            self._see("open", path, self._refused(error, path))
            if isinstance(error, EjectableError):
                raise
            raise as_ours(error, path) from error
        if self._recordings:
            self._see("open", path, self._state(descriptor, about))
            if not path.startswith(FROM_THE_KERNEL):  # whose times say when they were looked at
                for recording in self._recordings:
                    recording.opened(path, about)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")

    def content(self, path: str, limit: int) -> bytes:
        """All of a regular file, of at most `limit` bytes. Raises as `open`, and `DamagedInput` where it is larger."""
        with self.open(path) as file:
            return read_bounded(file, limit, name=path)

    def text(self, path: str, limit: int = 65536) -> str | None:
        """A small text file, without the white space around it; `None` as for `read`."""
        data = self.read(path, limit)
        return None if data is None else data.decode("utf-8", "replace").strip().strip("\0")

    def number(self, path: str) -> int | None:
        """A file that holds one decimal or 0x-number; `None` if it does not."""
        text = self.text(path, 64)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def list(self, path: str) -> tuple[str, ...] | None:
        """The names in a directory, sorted; `None` if there is none or it may not be read.

        At most 65,536 of them; where there are more, a doubt is left.
        """
        names: list[str] = []
        try:
            descriptor = self._beneath.folder(path)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        if len(names) >= MAX_ENTRIES:
                            text = f"{path} holds more than {MAX_ENTRIES} files."
                            self._doubt(Doubt(DoubtKind.BOUND, _from_top(path), text))
                            break
                        names.append(entry.name)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            self._see("list", path, self._refused(error, path))
            return None
        found = tuple(sorted(names))
        if self._recordings:
            self._see("list", path, hash_of("\0".join(found).encode("utf-8", "surrogateescape")))
        return found

    def link(self, path: str) -> str | None:
        """The last name of what a link leads to: the driver, the subsystem. `None` if it is no link.

        Only the name is wanted: in a captured tree the target itself may not have been captured.
        """
        try:
            target = self._beneath.target(path)
        except (OSError, ValueError) as error:
            no_link = isinstance(error, OSError) and error.errno == errno.EINVAL
            self._see("link", path, "no link" if no_link else self._refused(error, path))
            return None
        self._see("link", path, target)
        return target.rstrip("/").rpartition("/")[2] or None

    # Finding

    def stat(self, path: str) -> os.stat_result | None:
        """What the system says of a file, links followed; `None` if the path leads nowhere."""
        try:
            node = self._beneath.node(path)
        except (OSError, ValueError) as error:
            self._see("node", path, self._refused(error, path))
            return None
        try:
            about = os.fstat(node)
        finally:
            os.close(node)
        self._see("node", path, f"{stat.S_IFMT(about.st_mode):o}")
        return about

    def is_file(self, path: str) -> bool:
        """Whether it is a regular file, links followed."""
        about = self.stat(path)
        return about is not None and stat.S_ISREG(about.st_mode)

    def is_dir(self, path: str) -> bool:
        """Whether it is a directory, links followed."""
        about = self.stat(path)
        return about is not None and stat.S_ISDIR(about.st_mode)

    def exists(self, path: str) -> bool:
        """Whether there is anything, links followed."""
        return self.stat(path) is not None

    def resolve(self, path: str) -> str | None:
        """The path without links, from the root; `None` if it leads nowhere. Links never lead out of the root."""
        try:
            resolved = self._beneath.resolve(path)
        except (OSError, ValueError) as error:
            self._see("resolve", path, self._refused(error, path))
            return None
        self._see("resolve", path, resolved)
        return resolved

    def walk(self, path: str = "/", *, most: int = MAX_FILES) -> Iterator[Folder]:
        """Each folder below `path` with the names of its folders and of all else in it, sorted, as os.walk does.

        Links are names among the rest and are not followed; whoever removes a name from the list of folders keeps it
        from being entered. What is beyond `most` names or 64 folders deep is left out and leaves a doubt.
        """
        left = most
        pending = [("/" + path.strip("/"), 0)]
        while pending:
            folder, depth = pending.pop()
            names = self.list(folder) or ()
            left -= len(names)
            if left < 0 or depth > MAX_DEPTH:
                what = f"{most} files" if left < 0 else f"{MAX_DEPTH} folders, one in the other,"
                self._doubt(Doubt(DoubtKind.BOUND, folder, f"More than {what} below {path}: the rest was not read."))
                return
            folders = self._folders(folder, set(names))
            inner = sorted(folders)
            yield folder, inner, [name for name in names if name not in folders]
            pending += [(f"{folder.rstrip('/')}/{name}", depth + 1) for name in reversed(inner)]

    def directory(self, path: str, *, make: bool = False, made: Names | None = None) -> Directory:
        """Open a folder, to write in it. `make` makes what is missing of it, and notes that in `made`, outermost first.

        Raises `OSError`; a link that dangles is never made into a folder somewhere else.
        """
        shown = str(self.path / path.strip("/"))
        try:
            return Directory(self._beneath.folder(path), shown)
        except FileNotFoundError:
            parent, _, name = path.rstrip("/").rpartition("/")
            if not make or not name:
                raise
        with self.directory(parent or "/", make=True, made=made) as above:
            new = above.lstat(name) is None
            folder = above.enter(name, make=new)
        if new and made is not None:
            made.append(_from_top(path))
        return folder

    # For programs that want a path of this process

    def outside(self, path: str) -> str:
        """The path that this process uses for a path (already resolved) inside the root.

        For messages and for programs; what is opened by it is found anew. Read with `open` and `read`.
        """
        return os.path.join(self.path, path.lstrip("/"))  # noqa: PTH118  (hot: a thousand calls for one check)

    def file(self, path: str) -> str | None:
        """Where a regular file is for this process, links resolved; `None` if there is none. See `outside`."""
        resolved = self.resolve(path)
        return self.outside(resolved) if resolved is not None and self.is_file(resolved) else None

    # How it is done

    def _folders(self, folder: str, names: Collection[str]) -> set[str]:
        """Which of the names in a folder are folders themselves, and no links to any."""
        found = set()
        with contextlib.suppress(OSError, ValueError):
            descriptor = self._beneath.folder(folder)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in itertools.islice(entries, MAX_ENTRIES):
                        with contextlib.suppress(OSError):
                            if entry.is_dir(follow_symlinks=False) and entry.name in names:
                                found.add(entry.name)
            finally:
                os.close(descriptor)
        return found

    def _refused(self, error: OSError | ValueError, path: str) -> str:
        """Leave a doubt, unless there simply is nothing; the state for the recording."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if not self._beneath.is_dangling(path):
                return ABSENT
            text = f"A link on the way to {path} leads to what is not there."
            self._doubt(Doubt(DoubtKind.MISSING, _from_top(path), text))
            return "dangling"
        if self.live and not isinstance(error, PermissionError) and path.startswith(FROM_THE_KERNEL):
            return str(error)  # sysfs answers EIO, ENODEV and the like for an attribute that has nothing to say
        doubt = doubt_of(error, _from_top(path))
        self._doubt(doubt)
        return doubt.kind

    def _now(self, path: str) -> os.stat_result | None:
        with contextlib.suppress(OSError, ValueError):
            node = self._beneath.node(path)
            try:
                return os.fstat(node)
            finally:
                os.close(node)
        return None

    def _doubt(self, doubt: Doubt) -> None:
        self._all.doubt(doubt)
        for recording in self._recordings:
            recording.doubt(doubt)

    def _see(self, act: Act, path: str, state: str, limit: int = 0) -> None:
        for recording in self._recordings:
            recording.see(act, path, limit, state)

    def _state(self, descriptor: int, about: os.stat_result) -> str:
        """What tells an open file from what it may be the next time.

        The time of the last change cannot be set without root's rights, so that it is proof on the live machine; who
        makes an image sets it as they like, and there the content counts.
        """
        if about.st_size > SMALL and self.live:
            return identity_of(about)
        if about.st_size > MAX_HASHED:
            return secrets.token_hex(16)
        return hash_of_file(descriptor)

    def _look_again(self, seen: Seen) -> None:
        with contextlib.suppress(EjectableError):
            if seen.act == "read":
                self.read(seen.path, seen.limit, head=True)
            elif seen.act == "open":
                self.open(seen.path).close()
            elif seen.act == "list":
                self.list(seen.path)
            elif seen.act == "link":
                self.link(seen.path)
            elif seen.act == "node":
                self.stat(seen.path)
            else:
                self.resolve(seen.path)


def _from_top(path: str) -> str:
    return "/" + path.lstrip("/")


def _at_most(descriptor: int, limit: int) -> bytes:
    parts: list[bytes] = []
    while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 16))):
        parts.append(part)
        limit -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
