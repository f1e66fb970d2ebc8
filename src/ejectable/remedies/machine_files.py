# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads, writes and removes files of a machine below its root, through the descriptors of their folders.

What is in a user's folder is read and changed with that user's rights, also by root.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from ejectable import host
from ejectable.errors import BadInput, Missing
from ejectable.intake import Directory
from ejectable.remedies.acting import Owner, acting_as, is_user, owner_of_all

__all__ = ["Found", "drop_folders", "look", "missing_folders", "remove", "set_value", "write"]

MAX_FILE = 4 << 20  # bytes: what is changed are settings and sources
MOST_LINKS = 40  # as path_resolution(7) has it
PERMISSIONS = 0o777  # a set-user-id bit is nothing that a change of ours brings back


class Found(msgspec.Struct, frozen=True):
    """What is at a path. `real` is the path from the root without links; content and mode are `None` for no file."""

    real: str
    content: bytes | None
    mode: int | None


def look(root: host.Root, path: str) -> Found:
    """What is at a path of the machine; links are followed, below the root.

    Raises `BadInput` for what is no small regular file, and for a link to nothing: what was written through it would
    be somewhere else. `Denied` where a user's link would lead root to what is not that user's.
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise BadInput("expected the path of a file", path=path)
    if os.geteuid() == 0:
        _check_way(root, path)
    real = f"{_real(root, folder)}/{name}"
    try:
        with _folder(root, real) as (there, name):
            about = there.lstat(name)
            if about is None:
                return Found(real, None, None)
            if not _is_link(about):
                return Found(real, there.read(name, MAX_FILE), about.st_mode & PERMISSIONS)
    except FileNotFoundError:
        return Found(real, None, None)
    except NotADirectoryError as error:
        raise BadInput("a part of its path is no directory", path=path) from error
    except PermissionError as error:
        raise Missing(f"{path} may not be read.", hint="Run it as root.") from error
    resolved = root.resolve(path)
    if resolved is None:
        raise BadInput("expected a file, found a link to nothing", path=path)
    return look(root, resolved)


def missing_folders(root: host.Root, real: str) -> tuple[str, ...]:
    """The folders of a path that are not there yet, the outermost first."""
    parts = real.strip("/").split("/")[:-1]
    folders = ["/" + "/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return tuple(folder for folder in folders if root.resolve(folder) is None)


def write(root: host.Root, real: str, data: bytes, *, mode: int) -> None:
    """Write a file whole, or raise `OSError` and leave what is there; folders that are missing are made."""
    with _folder(root, real, make=True) as (there, name):
        there.write(name, data, mode=mode & PERMISSIONS)


def set_value(root: host.Root, real: str, value: bytes) -> None:
    """Write into a file of the running kernel's procfs, in place; raises `Missing` where it is none.

    In a captured tree, or with something else mounted there, it would only change what was captured.
    """
    if not root.live or root.link("/proc/self") != str(os.getpid()):
        raise Missing(f"{real} is no value of the running kernel.", hint="Mount procfs on /proc.")
    with _folder(root, real) as (there, name):
        there.set(name, value)


def remove(root: host.Root, real: str) -> None:
    """Remove a file."""
    with _folder(root, real) as (there, name):
        there.remove(name)


def drop_folders(root: host.Root, made: Sequence[str]) -> None:
    """Remove the folders that are empty, the last first: one that is not is used by somebody else by now."""
    for folder in reversed(made):
        with suppress(OSError), _folder(root, folder) as (there, name):
            there.remove_folder(name)


def _is_link(about: os.stat_result) -> bool:
    return (about.st_mode & 0o170000) == 0o120000


def _real(root: host.Root, folder: str) -> str:
    """The folder without links, from the root; the part of it that is not there yet stays as it is."""
    missing: list[str] = []
    parts = [part for part in folder.split("/") if part]
    while parts:
        resolved = root.resolve("/" + "/".join(parts))
        if resolved is not None:
            return "/".join([resolved.rstrip("/"), *reversed(missing)])
        missing.append(parts.pop())
    return "".join(f"/{part}" for part in reversed(missing))


@contextmanager
def _folder(root: host.Root, real: str, *, make: bool = False) -> Iterator[tuple[Directory, str]]:
    """The folder that a path without links is in, held open, and the last name of the path.

    No link on the way is followed: one that has come since the path was resolved would lead elsewhere. From the first
    folder on that is a user's, root works with that user's rights; what is another one's below it is refused.
    """
    *parts, name = real.strip("/").split("/")
    with ExitStack() as held:
        here = held.enter_context(root.directory("/"))
        users: tuple[Path, os.stat_result] | None = None
        for at, part in enumerate(("", *parts)):
            here = held.enter_context(_entered(here, part, real, make=make)) if part else here
            about = os.fstat(here.descriptor)
            if users is None and os.geteuid() == 0 and is_user(about.st_uid):
                users = (Path("/", *parts[:at]), about)
                held.enter_context(acting_as(Owner.of(about)))
            elif users is not None:
                owner_of_all([users, (Path("/", *parts[:at]), about)])
        mine = here.lstat(name)
        if users is not None and mine is not None:
            owner_of_all([users, (Path(real), mine)])
        yield here, name


def _entered(here: Directory, part: str, real: str, *, make: bool) -> Directory:
    try:
        return here.enter(part, make=make)
    except OSError as error:
        about = here.lstat(part)
        if about is not None and _is_link(about):
            raise BadInput("expected a folder, found a link to nothing", path=real) from error
        raise


def _check_way(root: host.Root, path: str) -> None:
    """For root: raise `Denied` where the way to a path goes through a user's folder to what is not that user's.

    Each link counts with the folder that it is in: whoever owns that may have it lead anywhere.
    """
    pending = [part for part in reversed(path.split("/")) if part]
    here, links = "", 0
    users: tuple[Path, os.stat_result] | None = None
    while pending and links <= MOST_LINKS:
        part = pending.pop()
        try:
            with root.directory(here or "/") as folder:
                about = os.fstat(folder.descriptor)
                named = None if part in (".", "..") else folder.lstat(part)
                target = folder.readlink(part) if named is not None and _is_link(named) else None
        except OSError:  # not there, or no folder: whoever opens it says so
            return
        if users is not None:
            owner_of_all([users, (Path(here or "/"), about)])
        elif is_user(about.st_uid):
            users = (Path(here or "/"), about)
        if target is None:
            here = {".": here, "..": here.rpartition("/")[0]}.get(part, f"{here}/{part}")
            continue
        links += 1
        here = "" if target.startswith("/") else here
        pending += [each for each in reversed(target.split("/")) if each]
