# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs read and judged in confined processes: one for many files, a few where there are many bytes. See
docs/confinement.md.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from ejectable.confine import Done, Fence, ask, load, run, share, stream
from ejectable.crash.inputs import Source, joined, listed, read_each
from ejectable.crash.kernel_log import NoLog
from ejectable.crash.logs import Log
from ejectable.errors import EjectableError
from ejectable.intake import Limits
from ejectable.intake.files import STANDARD_INPUT, is_pipe
from ejectable.intake.limits import GIB
from ejectable.intake.outside import opening_logs
from ejectable.model import Event, Judgement

__all__ = ["ReadLog", "Unreadable", "follow_log", "read_logs", "sources"]

SMALL = 8 << 20  # bytes for which starting more processes would take longer than reading
REPORTED = 8 << 20  # bytes after which a child says how far it is
# Libraries that unpack. What was read from a pipe is gone, so that they are loaded before it is read.
LIBRARIES = ("zlib", "bz2", "lzma", "zstandard", "lz4.frame", "lz4.block", "lzallright")
MEMORY = 2 * GIB
CPU_S = 3600  # of one process: some 70 GB of crashes
FILE_S = 600  # for a file, and a second more for each MiB
SILENT_S = 60  # without a sign of a process that follows a log, which gives one every two seconds


class Unreadable(msgspec.Struct, frozen=True):
    """A log that could not be read, or not to its end."""

    source: str
    message: str
    hint: str | None
    exit_code: int
    no_log: bool = False  # it can be read, and is something else
    holds_one: bool = False  # a memory dump, which a log can be got out of


class ReadLog(msgspec.Struct, frozen=True):
    """What one log held, and what is said of its events; or why it could not be read."""

    name: str
    found: Log | Unreadable
    judgements: tuple[Judgement, ...] = ()


class _Wire(msgspec.Struct, frozen=True):
    """The same on its way through a pipe."""

    name: str
    log: Log | None
    judgements: tuple[Judgement, ...] = ()
    unreadable: Unreadable | None = None


def sources(paths: Iterable[str]) -> list[Source]:
    """The logs that the paths stand for; parts of one pstore record are joined. Raises `Missing`, `BadInput`."""
    files = listed(paths)
    if len(files) < 2:
        return files
    names = [file.name for file in files]
    return run(lambda: joined(files), into=list[Source], outside=opening_logs(names), fence=Fence(descriptors=256))


def read_logs(
    found: Sequence[Source],
    judged: Callable[[Sequence[Event]], tuple[Judgement, ...]],
    matters: Callable[[Event], bool],
    *,
    jobs: int,
    limits: Limits,
    done: Callable[[int], None] | None = None,
) -> Iterator[tuple[Source, list[ReadLog], EjectableError | None]]:
    """Of each source in order: the logs that it held, and how its reading ended if not well.

    `judged` says what is to be said of each event of a log, `matters` whether one must be given though a bound is
    reached. `done` gets the bytes read.
    """
    if any(_flows(source) for source in found):
        for name in LIBRARIES:
            load(name)
    alone = len(found) == 1
    processes = 1 if sum(source.size for source in found) < SMALL else jobs
    threads = max(1, jobs // len(found)) if found else 1

    def work(number: int) -> Iterator[_Wire]:
        progress = _Progress() if alone and done else None
        for name, log in read_each(found[number], threads=threads, limits=limits, progress=progress, matters=matters):
            if isinstance(log, Log):
                yield _Wire(name, log, judged(log.events))
            else:
                yield _Wire(name, None, unreadable=_unreadable(name, log))

    def reported(count: str) -> bool:
        if done:
            done(int(count))
        return True

    outside = {
        **opening_logs(path for source in found for path in (source.name, *source.paths)),
        "progress": reported,
    }
    answers: Iterator[Done[_Wire]] = share(
        work,
        len(found),
        jobs=processes,
        into=_Wire,
        outside=outside,
        fence=lambda number: _fence(found[number]),
        again=lambda number: not _flows(found[number]),
    )
    for source, answer in zip(found, answers, strict=True):
        yield source, [_read(one) for one in answer.given], answer.error
        if done and not alone:
            done(source.size)


def follow_log(
    path: str,
    judged: Callable[[Event], Judgement],
    matters: Callable[[Event], bool],
) -> Iterator[tuple[Event, Judgement]]:
    """Each event of a log that grows, when it is complete, and what is said of it."""
    from ejectable.crash.follow import follow

    def work() -> Iterator[tuple[Event, Judgement]]:
        for event in follow(path, matters=matters, alive=lambda: ask("alive")):
            yield event, judged(event)

    fence = Fence(memory=MEMORY, cpu=None, seconds=SILENT_S)
    return stream(work, into=tuple[Event, Judgement], outside=opening_logs([path]), fence=fence, again=False)


class _Progress:
    """Says now and then how far the reading is."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, count: int) -> None:
        self._count += count
        if self._count >= REPORTED:
            ask("progress", str(self._count))
            self._count = 0


def _fence(source: Source) -> Fence:
    seconds = None if _flows(source) else FILE_S + (source.size >> 20)
    return Fence(memory=MEMORY, cpu=CPU_S, seconds=seconds, threads=True)


def _flows(source: Source) -> bool:
    """Whether it can be read once only, and comes when somebody writes it."""
    return source.name == STANDARD_INPUT or is_pipe(source.name)


def _read(wire: _Wire) -> ReadLog:
    if wire.log is not None:
        return ReadLog(wire.name, wire.log, wire.judgements)
    unreadable = wire.unreadable or Unreadable(wire.name, f"{wire.name}: nothing was said of it.", None, 70)
    return ReadLog(wire.name, unreadable)


def _unreadable(name: str, error: EjectableError) -> Unreadable:
    no_log = isinstance(error, NoLog)
    dump = isinstance(error, NoLog) and error.holds_one
    return Unreadable(name, error.message, error.hint, error.exit_code, no_log=no_log, holds_one=dump)
