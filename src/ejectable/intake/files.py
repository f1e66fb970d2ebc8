# SPDX-License-Identifier: GPL-2.0-or-later
"""Files by path: opened where they may be a FIFO, read where they may be endless, written whole or not at all.

For a path that the user gave; below a folder that somebody else may change, use `Directory`.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ejectable.confine import ask, confined
from ejectable.errors import BadInput
from ejectable.intake.directory import Directory, open_here
from ejectable.intake.reasons import as_ours

__all__ = ["KMSG", "is_directory", "is_file", "open_growing", "open_regular", "write_atomically"]

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
    try:
        about = Path(path).stat()
        if path != KMSG and not stat.S_ISFIFO(about.st_mode):
            return open_regular(path)
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)
    except BadInput:
        raise
    except (OSError, ValueError) as error:
        raise as_ours(error, path) from error


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
