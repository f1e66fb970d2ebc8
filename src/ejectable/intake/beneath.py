# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding a path below an open folder so that no link on the way, and nobody who renames meanwhile, leads out of it.

openat2(2) with RESOLVE_IN_ROOT does that in the kernel (Linux 5.6), as after chroot(2). Where the kernel lacks it, or a
filter of system calls refuses it, the same is done by hand: component after component, each opened without following.
RESOLVE_NO_MAGICLINKS also refuses the links of procfs that are no paths (/proc/PID/root and the like); by hand they are
read as the text that they show, which stays inside as well.
"""

import errno
import os
import stat
from collections.abc import Callable
from functools import cache

from ejectable.confine import ask, confined
from ejectable.errors import BadInput
from ejectable.intake.reasons import kind_of_file

__all__ = ["Beneath", "DanglingLink"]

MAX_LINKS = 40  # as the kernel's own MAXSYMLINKS, include/linux/namei.h
NODE = os.O_PATH | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# include/uapi/linux/openat2.h; the number is the same on every architecture that has it but Alpha.
NUMBER = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10
MAX_TRIES = 16  # EAGAIN: somebody renamed a folder on the way (openat2(2))

OpenAt2 = Callable[[int, bytes, int], int]


class DanglingLink(FileNotFoundError):
    """A link was followed, and what it leads to is not there."""


class Beneath:
    """Paths below the folder behind the descriptor `top`, with or without a leading slash; `..` ends at the top."""

    def __init__(self, top: int, path: str) -> None:
        """`path` is where the top lies: a confined process asks for it by that name."""
        self._top = top
        self._path = path
        self._system = None if confined() else _openat2()

    def node(self, path: str) -> int:
        """A descriptor (O_PATH) of whatever is there, links followed. Raises `OSError` or `ValueError`."""
        if confined():
            return int(ask("node", self._path, path))
        return self._open(path, NODE)

    def folder(self, path: str) -> int:
        """A descriptor of a folder, to list and to work in. Raises `OSError` or `ValueError`."""
        if confined():
            return int(ask("folder", self._path, path))
        return self._open(path, FOLDER)

    def file(self, path: str) -> tuple[int, os.stat_result]:
        """A non-blocking descriptor of a regular file, and what fstat(2) says of it.

        Raises `BadInput` for anything else, which is never opened: a device may do something by being opened.
        """
        if confined():
            descriptor = int(ask("file", self._path, path))
            return descriptor, os.fstat(descriptor)
        node = self.node(path)
        try:
            about = os.fstat(node)
            if not stat.S_ISREG(about.st_mode):
                raise BadInput(f"expected a regular file, found {kind_of_file(about.st_mode)}", path=path)
            try:
                # The very file that was looked at, whatever has its name by now.
                return os.open(f"/proc/self/fd/{node}", READ), about
            except OSError:  # no /proc here, or not for this user: then by its name, and looked at again
                descriptor, _ = self._walk(path, READ)
            if not os.path.samestat(about, os.fstat(descriptor)):
                os.close(descriptor)
                raise BadInput("it was replaced while it was opened", path=path)
            return descriptor, about
        finally:
            os.close(node)

    def target(self, path: str) -> str:
        """What the link at `path` holds, those on the way to it followed. Raises `OSError` or `ValueError`."""
        if confined():
            return str(ask("target", self._path, path))
        parent, _, name = path.rstrip("/").rpartition("/")
        folder = self.node(parent)
        try:
            return os.readlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def resolve(self, path: str) -> str:
        """The path without links, from the top. Raises `OSError` or `ValueError` where it leads nowhere."""
        if confined():
            return str(ask("resolve", self._path, path))
        node, resolved = self._walk(path, NODE)
        os.close(node)
        return resolved

    def is_dangling(self, path: str) -> bool:
        """Whether a path that leads nowhere does so by a link that dangles, rather than by its own last name."""
        if confined():
            return bool(ask("dangling", self._path, path))
        parent, _, name = path.rstrip("/").rpartition("/")
        try:
            folder = self.node(parent)
        except (OSError, ValueError):
            pass
        else:
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
            except (OSError, ValueError):
                return False
            finally:
                os.close(folder)
        try:
            self.resolve(path)
        except DanglingLink:
            return True
        except (OSError, ValueError):
            return False
        return False

    def _open(self, path: str, flags: int) -> int:
        if self._system is not None:
            name = os.fsencode(path) or b"."
            if b"\0" in name:
                raise ValueError("embedded null byte")
            try:
                return self._system(self._top, name, flags)
            except BlockingIOError:
                pass  # it is renamed all the time: by hand, each step holds the folder that it is in
        return self._walk(path, flags)[0]

    def _walk(self, path: str, flags: int) -> tuple[int, str]:
        """As `_open`, by hand; also the path without links."""
        pending = [(part, False) for part in _parts(path)]
        stack = [os.dup(self._top)]
        names: list[str] = []
        links = 0
        try:
            while pending:
                part, from_link = pending.pop()
                if not stat.S_ISDIR(os.fstat(stack[-1]).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                if part == "..":
                    if names:
                        names.pop()
                        os.close(stack.pop())
                    continue
                node = _component(part, stack[-1], path, from_link=from_link)
                if not stat.S_ISLNK(os.fstat(node).st_mode):
                    stack.append(node)
                    names.append(part)
                    continue
                try:
                    target = os.readlink("", dir_fd=node)
                finally:
                    os.close(node)
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    names.clear()
                    while len(stack) > 1:
                        os.close(stack.pop())
                pending += [(name, True) for name in _parts(target)]
            return _reopened(stack, names, flags), "/" + "/".join(names)
        finally:
            for descriptor in stack:
                os.close(descriptor)


def _component(name: str, folder: int, path: str, *, from_link: bool) -> int:
    """A node in an open folder, a link itself and not what it leads to."""
    try:
        return os.open(name, NODE | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError as error:
        if from_link:
            raise DanglingLink(error.errno, error.strerror, path) from error
        raise


def _reopened(stack: list[int], names: list[str], flags: int) -> int:
    """The last of the open components, opened with `flags`; it stays the file that was found."""
    if flags == NODE:
        return stack.pop()
    if stat.S_ISDIR(os.fstat(stack[-1]).st_mode):
        return os.open(".", flags, dir_fd=stack[-1])
    descriptor = os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=stack[-2])
    if not os.path.samestat(os.fstat(stack[-1]), os.fstat(descriptor)):
        os.close(descriptor)
        raise BlockingIOError(errno.EAGAIN, "it was replaced while it was opened")
    return descriptor


def _parts(path: str) -> list[str]:
    """The components, the first one last; what ends with a slash is a folder."""
    parts = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    return [*(["."] if path.endswith(("/", "/.")) and parts else []), *parts]


@cache
def _openat2() -> OpenAt2 | None:
    """openat2(2) as (folder, path, flags) → descriptor; `None` where this system does not let us have it."""
    import ctypes

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    try:
        system = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    system.restype = ctypes.c_long
    system.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(OpenHow), ctypes.c_size_t)
    kept: dict[int, OpenHow] = {}

    def openat2(folder: int, path: bytes, flags: int) -> int:
        how = kept.get(flags)
        if how is None:
            how = kept[flags] = OpenHow(flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        number = errno.EAGAIN
        for _ in range(MAX_TRIES):
            descriptor = int(system(NUMBER, folder, path, ctypes.byref(how), ctypes.sizeof(how)))
            if descriptor >= 0:
                return descriptor
            number = ctypes.get_errno()
            if number not in (errno.EAGAIN, errno.EINTR):
                break
        raise OSError(number, os.strerror(number), os.fsdecode(path))

    here = os.open("/", NODE)
    try:
        os.close(openat2(here, b".", NODE))
    except OSError:
        return None
    finally:
        os.close(here)
    return openat2
