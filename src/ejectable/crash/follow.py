# SPDX-License-Identifier: GPL-2.0-or-later
"""A log that grows: standard input, a file that is written to and rotated, /dev/kmsg. Events as they are complete."""

import errno
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ejectable.crash.kernel_log import SAMPLE, is_kernel_log, refuse
from ejectable.crash.logs import Learner, Matters, nothing_matters
from ejectable.crash.reader import Reader
from ejectable.intake.files import STANDARD_INPUT, is_same_file, open_growing, open_stream
from ejectable.model import Event

__all__ = ["QUIET_S", "follow"]

QUIET_S = 2.0  # without a line, after which what is open is given as it stands
POLL_S = 0.2  # between two looks at a file, which cannot be waited for
CHUNK = 1 << 18


def follow(
    path: str, *, matters: Matters = nothing_matters, alive: Callable[[], object] = lambda: None
) -> Iterator[Event]:
    """The events of a log from its beginning, each as soon as it is complete or nothing came for two seconds.

    `alive` is called with each piece, and at least every two seconds. Ends with the end of a pipe; goes on for ever
    with a file or /dev/kmsg. Raises `Missing` where it cannot be opened, `BadInput` where a pipe ended in which no
    line was a kernel's.
    """
    reader = Reader(path, matters=matters)
    learner = Learner(reader)
    first = b""
    seen = quiet = False
    for data in _pieces(path):
        alive()
        if data is None:
            if not quiet:
                yield from reader.quiet()
            quiet = True
            continue
        quiet = False
        if len(first) < SAMPLE:
            first += data[: SAMPLE - len(first)]
        learner.learn(data)
        for event in reader.feed(data):
            seen = True
            yield event
    for event in reader.finish():
        seen = True
        yield event
    if not seen and not is_kernel_log(first):
        raise refuse(first, path)


def _pieces(path: str) -> Iterator[bytes | None]:
    """What comes, in pieces; `None` each time that nothing came for `QUIET_S`."""
    if path == STANDARD_INPUT:
        with open_stream(path) as standard:
            yield from _of_pipe(standard.fileno())
        return
    file = open_growing(path)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        yield from _of_file(path, file)
        return
    with file:
        yield from _of_pipe(file.fileno())


def _of_pipe(descriptor: int) -> Iterator[bytes | None]:
    """A pipe, or /dev/kmsg, which gives a record for each read (Documentation/ABI/testing/dev-kmsg)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if not poll.poll(QUIET_S * 1000):
            yield None
            continue
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno == errno.EPIPE:  # records were overwritten before they were read
                continue
            raise
        if not data:
            return
        yield data


def _of_file(path: str, file: BinaryIO) -> Iterator[bytes | None]:
    """A file that grows. Where another takes its name, or it becomes shorter, it is read from the beginning."""
    last = time.monotonic()
    try:
        while True:
            data = os.read(file.fileno(), CHUNK)
            if data:
                last = time.monotonic()
                yield data
                continue
            if time.monotonic() - last >= QUIET_S:
                last = time.monotonic()
                yield None
            time.sleep(POLL_S)
            about = os.fstat(file.fileno())
            if about.st_size < os.lseek(file.fileno(), 0, os.SEEK_CUR):
                os.lseek(file.fileno(), 0, os.SEEK_SET)
            elif not is_same_file(path, about.st_dev, about.st_ino):
                fresh = open_growing(path)
                rest = os.read(file.fileno(), CHUNK)
                file.close()
                file = fresh
                if rest:
                    yield rest
    finally:
        file.close()
