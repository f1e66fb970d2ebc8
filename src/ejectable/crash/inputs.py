# SPDX-License-Identifier: GPL-2.0-or-later
"""What the paths on a command line stand for: files, directories, standard input, the parts of a pstore record."""

import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

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

__all__ = ["Source", "read", "sources"]

MOST_FILES = 20000
MOST_PART = 4 << 20  # bytes of one pstore part; backends give some KiB
# The first line of a pstore record (fs/pstore/platform.c): why, which count since boot, which part; part 1 is the
# newest piece of the log, so that they are read from the highest number down.
PART = re.compile(rb"\A(\w+)#(\d+) Part(\d+)\s*\n")
# EFI's and ERST's names hold the time of the boot: `dmesg-efi-` time, two digits of part, three of count.
NAME = re.compile(r"(?:dmesg-)?([a-z_]+)-(\d+)(\d{2})(\d{3})(?:\.enc\.z)?\Z")


class Source(msgspec.Struct, frozen=True):
    """One log to read: a file, several parts in order, or standard input ("-")."""

    name: str
    paths: tuple[str, ...]
    size: int = 0  # bytes, where known


def sources(paths: Iterable[str]) -> list[Source]:
    """The logs that the paths stand for; parts of one pstore record are joined. Raises `Missing`, `BadInput`."""
    files: list[str] = []
    found: list[Source] = []
    for path in paths or ("-",):
        if path == "-":
            found.append(Source("-", ()))
        elif is_directory(path):
            files += _below(path)
        else:
            files.append(path)
    groups: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for path in files:
        size, part = _peek(path)
        if part is None:
            found.append(Source(path, (path,), size))
            continue
        word, count, number = part
        name = NAME.match(Path(path).name)
        boot = name.group(2) if name else Path(path).name.rsplit("-", 1)[0]
        groups.setdefault((str(Path(path).parent), boot, word, count), []).append((number, path))
    for parts in groups.values():
        parts.sort(key=lambda one: (-one[0], one[1]))
        found.append(Source(parts[0][1], tuple(path for _, path in parts)))
    if not found:
        raise BadInput("the directory holds no file to read", path=next(iter(paths), None))
    return found


def read(
    source: Source,
    *,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
    matters: Matters = nothing_matters,
) -> Log:
    """Read one log. Raises `Missing` where it cannot be read, `BadInput` where it is none."""
    if source.name == "-":
        if _is_plain_file(sys.stdin.fileno()):
            return read_file(sys.stdin.fileno(), "-", threads=threads, progress=progress, matters=matters)
        stream = open_decompressed(sys.stdin.buffer, name="standard input")
        return read_stream(stream, "-", limit=None, progress=progress, matters=matters)
    if len(source.paths) > 1 or (source.paths and _peek(source.name)[1] is not None):
        return _joined(source, matters)
    if _is_pipe(source.name):
        with open(source.name, "rb") as stream:  # noqa: PTH123  (process substitution: /dev/fd/63)
            return read_stream(
                open_decompressed(stream, name=source.name), source.name, progress=progress, matters=matters
            )
    with open_regular(source.name) as file:
        try:
            head = os.pread(file.fileno(), 16, 0)
            if sniff(head) is not Compression.NONE:
                unpacked = open_decompressed(file, name=source.name)
                return read_stream(unpacked, source.name, limit=limits.unpacked, matters=matters)
            return read_file(file.fileno(), source.name, threads=threads, progress=progress, matters=matters)
        except OSError as error:
            raise Missing(f"{source.name}: cannot be read: {error.strerror or error}.") from error


def _joined(source: Source, matters: Matters) -> Log:
    """The parts of a pstore record as one log; events keep the file and the line that they stand in."""
    data = bytearray()
    starts: list[tuple[int, str]] = []
    for path in source.paths:
        with open_regular(path) as file:
            piece = file.read(MOST_PART)
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
    return log


def _below(folder: str) -> list[str]:
    """The regular files under a directory, sorted; links are not followed."""
    found: list[str] = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        folders.sort()
        for name in sorted(names):
            path = f"{place.rstrip(os.sep)}{os.sep}{name}"
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    found.append(path)
            except OSError:
                continue
            if len(found) > MOST_FILES:
                raise BadInput(f"more than {MOST_FILES} files", path=folder, hint="Name a smaller directory.")
    return found


def _unreadable(error: OSError) -> None:
    raise Missing(
        f"{error.filename}: may not be read by this user.", hint="Run it as root, or as the owner."
    ) from error


def _peek(path: str) -> tuple[int, tuple[str, str, int] | None]:
    """The size of a file, and what its first line says if it is a pstore part."""
    if _is_pipe(path):
        return 0, None
    try:
        with open_regular(path) as file:
            match = PART.match(file.read(80))
            size = os.fstat(file.fileno()).st_size
    except (EjectableError, OSError):
        return 0, None  # it is opened again, and complained about, when its turn comes
    if not match or len(match.group(3)) > 6:
        return size, None
    return size, (match.group(1).decode(), match.group(2).decode(), int(match.group(3)))


def _is_plain_file(descriptor: int) -> bool:
    """Whether standard input was redirected from a file that is not compressed, and nobody has read of it."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.lseek(descriptor, 0, os.SEEK_CUR):
            return False
        return sniff(os.pread(descriptor, 16, 0)) is Compression.NONE
    except OSError:
        return False


def _is_pipe(path: str) -> bool:
    """A shell's process substitution, which somebody surely writes to."""
    if not path.startswith(("/dev/fd/", "/proc/self/fd/", "/dev/stdin")):
        return False
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        return False
