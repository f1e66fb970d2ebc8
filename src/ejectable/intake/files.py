# SPDX-License-Identifier: GPL-2.0-or-later
"""Files by path: opened where they may be a FIFO, read where they may be endless, written whole or not at all.

For a path that the user gave; below a folder that somebody else may change, use `Directory`.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ejectable.confine import ask, confined
from ejectable.errors import BadInput, Missing
from ejectable.intake.directory import Directory, open_here
from ejectable.intake.reasons import as_ours

__all__ = [
    "KMSG",
    "STANDARD_INPUT",
    "is_directory",
    "is_file",
    "is_pipe",
    "is_same_file",
    "open_growing",
    "open_regular",
    "open_stream",
    "write_atomically",
]

STANDARD_INPUT = "-"
KMSG = "/dev/kmsg"  # the kernel's own log, a record for each read


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, unbuffered surprises excluded: no FIFO, socket, device or directory.

    Raises `BadInput` if it is something else, `Missing` if it is not there, `Denied` if it may not be read.
    """
    name = os.fspath(path)
    if confined():
        return os.fdopen(int(ask("open", name)), "rb")
    try:
        descriptor = open_here(name, os.O_RDONLY, links=True)
    except BadInput:  # it is a ValueError too
        raise
    except (OSError, ValueError) as error:
        raise as_ours(error, name) from error
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def open_growing(path: str) -> BinaryIO:
    """Open what grows while it is read: a regular file, a FIFO, or /dev/kmsg; reading it does not block.

    Raises `BadInput` if it is something else, `Missing` if it is not there, `Denied` if it may not be read.
    """
    if confined():
        return os.fdopen(int(ask("growing", path)), "rb", buffering=0)
    try:
        about = Path(path).stat()
        if path != KMSG and not stat.S_ISFIFO(about.st_mode):
            return open_regular(path)
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise as_ours(error, path) from error


def open_stream(name: str) -> BinaryIO:
    """Open standard input (`-`), or a pipe that a shell made and somebody surely writes to (/dev/fd/63).

    Raises `Missing` where it is closed, or not there.
    """
    if confined():
        return os.fdopen(int(ask("stream", name)), "rb")
    try:
        descriptor = os.dup(0) if name == STANDARD_INPUT else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if name == STANDARD_INPUT:
            raise Missing("Standard input is closed.", hint="Name a file, or pipe one in.") from error
        raise as_ours(error, name) from error
    return os.fdopen(descriptor, "rb")


def is_pipe(path: str) -> bool:
    """Whether a path is a pipe that a shell made, as in `<(command)`."""
    if not path.startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")):
        return False
    if confined():
        return bool(ask("is_pipe", path))
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        return False


def is_same_file(path: str, device: int, number: int) -> bool:
    """Whether a path leads to the file of this device and inode; true where it leads nowhere, between two files."""
    if confined():
        return bool(ask("is_same_file", path, str(device), str(number)))
    try:
        now = Path(path).stat()
    except (OSError, ValueError):
        return True
    return (now.st_dev, now.st_ino) == (device, number)


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a directory, links followed. Where the system refuses to tell, opening it says why."""
    if confined():
        return bool(ask("is_directory", os.fspath(path)))
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a regular file, links followed. Where the system refuses to tell, opening it says why."""
    if confined():
        return bool(ask("is_file", os.fspath(path)))
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def write_atomically(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` aside and rename it into place, as `Directory.write` does; links lead to the folder only."""
    folder, name = os.path.split(os.fspath(path))
    with Directory.open(folder or ".") as directory:
        directory.write(name, data, mode=mode)
