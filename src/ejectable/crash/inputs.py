# SPDX-License-Identifier: GPL-2.0-or-later
"""What the paths on a command line stand for: files, directories, standard input, the parts of a pstore record."""

import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ejectable.crash.archives import is_tar, is_zip, tar_members, zip_members
from ejectable.crash.logs import Log, Matters, nothing_matters, read_bytes, read_file, read_stream
from ejectable.errors import BadInput, EjectableError, Missing
from ejectable.intake import (
    DEFAULT_LIMITS,
    Compression,
    Limits,
    is_directory,
    open_decompressed,
    open_regular,
    sniff,
)
from ejectable.intake.files import STANDARD_INPUT, is_pipe, open_stream

__all__ = ["Source", "joined", "listed", "read", "read_each", "sources"]

MOST_FILES = 20000
MOST_PART = 4 << 20  # bytes of one pstore part; backends give some KiB
MOST_PARTS = 32 << 20  # of all parts of one record: the log buffer of a kernel is smaller
# The first line of a pstore record (fs/pstore/platform.c): why, which count since boot, which part; part 1 is the
# newest piece of the log, so that they are read from the highest number down.
PART = re.compile(rb"\A(\w+)#(\d+) Part(\d+)\s*\n")
# EFI's and ERST's names hold the time of the boot: `dmesg-efi-` time, two digits of part, three of count.
NAME = re.compile(r"(?:dmesg-)?([a-z_]{1,40})-(\d{1,20})(\d{2})(\d{3})(?:\.enc\.z)?\Z")


class Source(msgspec.Struct, frozen=True):
    """One log to read: a file, several parts in order, or standard input ("-")."""

    name: str
    paths: tuple[str, ...]
    size: int = 0  # bytes, where known
    found: bool = False  # in a folder that was named, so that it need not be a log


def listed(paths: Iterable[str]) -> list[Source]:
    """The files that the paths stand for, by name and size; nothing in them is read. Raises `Missing`, `BadInput`."""
    found: list[Source] = []
    for path in paths or (STANDARD_INPUT,):
        if path == STANDARD_INPUT:
            found.append(Source(path, ()))
        elif is_directory(path):
            found += _below(path)
        else:
            found.append(Source(path, (path,), _size(path)))
    if not found:
        raise BadInput("the directory holds no file to read", path=next(iter(paths), None))
    return found


def joined(files: Sequence[Source]) -> list[Source]:
    """The logs that the files are; the parts of one pstore record are one. Looks into each."""
    found: list[Source] = []
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for file in files:
        path = file.name
        part = _part(path) if file.paths else None
        if part is None:
            found.append(file)
            continue
        word, count, number = part
        name = NAME.match(Path(path).name)
        boot = name.group(2) if name else Path(path).name.rsplit("-", 1)[0]
        groups.setdefault((str(Path(path).parent), boot, word, count), []).append((number, path))
    for parts in groups.values():
        parts.sort(key=lambda one: (-one[0], one[1]))
        found.append(Source(parts[0][1], tuple(path for _, path in parts)))
    return found


def sources(paths: Iterable[str]) -> list[Source]:
    """The logs that the paths stand for. Raises `Missing`, `BadInput`."""
    return joined(listed(paths))


def read_each(
    source: Source,
    *,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
    matters: Matters = nothing_matters,
) -> Iterator[tuple[str, Log | EjectableError]]:
    """The logs that a source holds, by name: one, or every one in an archive; or why it could not be read."""
    try:
        if source.name == STANDARD_INPUT:
            with open_stream(source.name) as standard:
                if _is_plain_file(standard.fileno()):
                    log = read_file(standard.fileno(), "-", threads=threads, progress=progress, matters=matters)
                    yield "-", log
                    return
                stream = open_decompressed(standard, name="standard input")
                yield from _from_stream(stream, "-", None, limits, progress, matters)
        elif len(source.paths) > 1 or (source.paths and _part(source.name) is not None):
            yield source.name, _joined(source, matters)
        elif is_pipe(source.name):
            with open_stream(source.name) as pipe:
                stream = open_decompressed(pipe, name=source.name)
                yield from _from_stream(stream, source.name, None, limits, progress, matters)
        else:
            with open_regular(source.name) as file:
                head = os.pread(file.fileno(), 512, 0)
                if is_zip(head):
                    yield from _members(zip_members(file, source.name, limits), source.name, limits, matters)
                elif is_tar(head) or sniff(head) is not Compression.NONE:
                    stream = open_decompressed(file, name=source.name)
                    yield from _from_stream(stream, source.name, limits.unpacked, limits, progress, matters)
                else:
                    log = read_file(file.fileno(), source.name, threads=threads, progress=progress, matters=matters)
                    yield source.name, log
    except EjectableError as error:
        yield source.name, error
    except OSError as error:
        yield source.name, Missing(f"{source.name}: cannot be read: {error.strerror or error}.")


def read(source: Source, **options: Any) -> Log:
    """Read one log. Raises `Missing` where it cannot be read, `BadInput` where it is none."""
    _, log = next(read_each(source, **options))
    if isinstance(log, EjectableError):
        raise log
    return log


def _from_stream(  # noqa: PLR0917  (all of them, on the way through)
    stream: BinaryIO,
    name: str,
    limit: int | None,
    limits: Limits,
    progress: Callable[[int], None] | None,
    matters: Matters,
) -> Iterator[tuple[str, Log | EjectableError]]:
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
    if is_tar(buffered.peek(512)):
        yield from _members(tar_members(buffered, name, limits), name, limits, matters)
    else:
        yield name, read_stream(buffered, name, limit=limit, progress=progress, matters=matters)


def _members(
    members: Iterator[tuple[str, BinaryIO]], archive: str, limits: Limits, matters: Matters
) -> Iterator[tuple[str, Log | EjectableError]]:
    """Each member of an archive that is read, as a log of its own."""
    for member, content in members:
        name = f"{archive}({member})"
        try:
            stream = open_decompressed(content, name=name)
            yield name, read_stream(stream, name, limit=limits.unpacked, matters=matters)
        except EjectableError as error:
            yield name, error


def _joined(source: Source, matters: Matters) -> Log:
    """The parts of a pstore record as one log; events keep the file and the line that they stand in."""
    data = bytearray()
    starts: list[tuple[int, str]] = []
    left_out = 0
    for path in source.paths:
        if len(data) >= MOST_PARTS:
            left_out += 1
            continue
        with open_regular(path) as file:
            piece = file.read(min(MOST_PART, MOST_PARTS - len(data)))
        starts.append((data.count(b"\n"), path))
        data += piece if piece.endswith(b"\n") else piece + b"\n"
    log = read_bytes(bytes(data), source.name, matters=matters)
    events = []
    for event in log.events:
        before, path = next((start, path) for start, path in reversed(starts) if start < event.line)
        last = None if event.last_line is None else max(event.last_line - before, 1)
        follows = None if event.follows is None else max(event.follows - before, 1)
        events.append(
            msgspec.structs.replace(event, source=path, line=event.line - before, last_line=last, follows=follows)
        )
    log.events = events
    if left_out:
        log.damaged = f"{source.name}: {left_out} parts of the record beyond {MOST_PARTS >> 20} MiB were not read"
    return log


def _below(folder: str) -> list[Source]:
    """The regular files under a directory, sorted; links are not followed."""
    found: list[Source] = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            path = f"{place.rstrip(os.sep)}{os.sep}{name}"
            try:
                about = os.lstat(path)
                if stat.S_ISREG(about.st_mode):
                    found.append(Source(path, (path,), about.st_size, found=True))
            except OSError:
                continue
            if len(found) > MOST_FILES:
                raise BadInput(f"more than {MOST_FILES} files", path=folder, hint="Name a smaller directory.")
    return found


def _unreadable(error: OSError) -> None:
    raise Missing(
        f"{error.filename}: may not be read by this user.", hint="Run it as root, or as the owner."
    ) from error


def _size(path: str) -> int:
    try:
        about = os.stat(path)  # noqa: PTH116  (a path may be no path at all)
    except (OSError, ValueError):
        return 0  # it is opened later, and complained about, when its turn comes
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def _part(path: str) -> tuple[str, str, int] | None:
    """What the first line of a file says if it is a part of a pstore record: why, which count, which part."""
    if is_pipe(path):
        return None
    try:
        with open_regular(path) as file:
            match = PART.match(file.read(80))
    except (EjectableError, OSError):
        return None  # it is opened again, and complained about, when its turn comes
    if not match or len(match.group(3)) > 6:
        return None
    return match.group(1).decode(), match.group(2).decode(), int(match.group(3))


def _is_plain_file(descriptor: int) -> bool:
    """Whether standard input was redirected from a file that is not compressed, and nobody has read of it."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.lseek(descriptor, 0, os.SEEK_CUR):
            return False
        return sniff(os.pread(descriptor, 16, 0)) is Compression.NONE
    except OSError:
        return False
