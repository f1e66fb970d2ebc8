# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening what may be a FIFO, reading what may be endless, writing what must not be half there."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from ejectable.errors import BadInput, DamagedInput, Missing

__all__ = ["open_regular", "read_bounded", "write_atomically"]

STEP = 1 << 20


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, unbuffered surprises excluded: no FIFO, socket, device or directory.

    Raises `BadInput` if it is something else, `Missing` if it is not there or may not be read.
    """
    name = os.fspath(path)
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _as_ours(error, name) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise BadInput(f"expected a regular file, found {_kind(mode)}", path=name)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "rb")


def read_bounded(stream: BinaryIO, limit: int, *, name: str) -> bytes:
    """Read `stream` to its end; raises `DamagedInput` if it holds more than `limit` bytes."""
    pieces: list[bytes] = []
    left = limit + 1
    try:
        # Asked for `limit` bytes at once, the stream would take that much memory before it reads the first of them.
        step = _size(stream) + 1
        while left and (piece := stream.read(min(left, step))):
            pieces.append(piece)
            left -= len(piece)
            step = STEP
    except OSError as error:
        raise _as_ours(error, name) from error
    if not left:
        raise DamagedInput(f"larger than the limit of {limit} bytes", path=name)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _size(stream: BinaryIO) -> int:
    """How many bytes the file behind `stream` says that it has; `STEP` where there is no file, or it does not tell."""
    try:
        return os.fstat(stream.fileno()).st_size or STEP
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return STEP


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` aside and rename it into place: readers see the old file or the new one, never a part."""
    import tempfile

    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Root leaves a file to whom it belongs: a user's source tree, a service's settings.
        if os.geteuid() == 0 and path.exists():
            was = path.stat()
            if (was.st_uid, was.st_gid) != (0, 0):  # vfat knows no owners, and refuses to be told one
                os.chown(aside, was.st_uid, was.st_gid)
        os.chmod(aside, mode)  # noqa: PTH101  (mkstemp gave a string)
        os.replace(aside, path)  # noqa: PTH105
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _as_ours(error: OSError, name: str) -> Exception:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Missing(f"{name}: no such file.", hint="Check the path.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Missing(f"{name}: may not be read by this user.", hint="Run it as root, or as the owner.")
    if error.errno == errno.ENXIO:
        return BadInput("expected a regular file, found a socket or a device without a driver", path=name)
    return BadInput(f"cannot be read: {error.strerror or error}", path=name)


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return word
    return "something else"
