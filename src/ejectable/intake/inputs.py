# SPDX-License-Identifier: GPL-2.0-or-later
"""Something to be read, opened anew each time: a file, a file below a root, standard input or a pipe in memory."""

import io
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from ejectable.confine import ask, confined
from ejectable.errors import BadInput
from ejectable.intake.bounded import read_bounded
from ejectable.intake.files import STANDARD_INPUT, open_regular
from ejectable.intake.limits import Limits
from ejectable.intake.reasons import as_ours
from ejectable.intake.root import Root

__all__ = ["STANDARD_INPUT", "Input", "file_below", "file_input", "memory_input", "stream_input"]

WRITER_S = 5.0  # until the first byte of a pipe, where nobody has it open for writing


class Input(msgspec.Struct, frozen=True):
    """`name` is what to call it; `open` begins at its first byte; `path` is where it lies, if it lies anywhere."""

    name: str
    open: Callable[[], BinaryIO]
    path: Path | None = None


def file_input(path: str | os.PathLike[str]) -> Input:
    """A regular file by its path."""
    return Input(os.fspath(path), lambda: open_regular(path), Path(path))


def file_below(root: Root, path: str) -> Input:
    """A regular file by its path from the top of `root`, out of which no link leads."""
    there = root.outside(path)
    return Input(there, lambda: root.open(path), Path(there))


def stream_input(name: str, limits: Limits) -> Input | None:
    """Standard input (`-`), a FIFO or an open pipe (/dev/fd/N), read to its end into memory; `None` for anything else.

    Raises `DamagedInput` where it holds more than one input may, `BadInput` where standard input is a terminal.
    """
    if confined():
        return _from_outside(name)
    if name == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.isatty():
            raise BadInput("expected a kernel on standard input, found a terminal", path=name,
                           hint="Name a file, or pipe one in: `ejectable kernel - < vmlinuz`.")  # fmt: skip
        return memory_input("standard input", read_bounded(sys.stdin.buffer, limits.in_memory, name="standard input"))
    try:
        if not stat.S_ISFIFO(os.stat(name).st_mode):  # noqa: PTH116  (a name may be no path at all)
            return None
    except (OSError, ValueError):
        return None
    try:
        return memory_input(name, _read_pipe(name, limits.in_memory))
    except OSError as error:
        raise as_ours(error, name) from error


def _from_outside(name: str) -> Input | None:
    descriptor = ask("stream", name)
    if descriptor is False:
        return None

    def opened() -> BinaryIO:
        file = os.fdopen(int(descriptor), "rb", closefd=False)
        file.seek(0)
        return file

    return Input("standard input" if name == STANDARD_INPUT else name, opened)


def _read_pipe(name: str, limit: int) -> bytes:
    """What comes out of a pipe until its writers have closed it. Raises `BadInput` where none comes for a while."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        deadline = time.monotonic() + WRITER_S
        # Without a writer a pipe that does not block is at its end; with one that has not written yet, `None` comes.
        while (first := pipe.read(1)) == b"":
            if time.monotonic() > deadline:
                raise BadInput("expected a kernel, and nobody writes into this pipe", path=name)
            time.sleep(0.05)
        os.set_blocking(descriptor, True)
        rest = read_bounded(io.BufferedReader(pipe), limit, name=name)
    return (first or b"") + rest


def memory_input(name: str, data: bytes | memoryview) -> Input:
    """What was read already."""
    return Input(name, lambda: io.BufferedReader(io.BytesIO(data)))
