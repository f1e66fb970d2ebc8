# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what may be endless: never more than asked for, and no memory for what does not come."""

import os
from typing import BinaryIO

from ejectable.errors import DamagedInput
from ejectable.intake.reasons import as_ours

__all__ = ["read_at_most", "read_bounded"]

STEP = 1 << 20


def read_at_most(stream: BinaryIO, limit: int) -> bytes:
    """The next `limit` bytes of `stream`, or all that there are. Raises `OSError` as the stream does."""
    pieces: list[bytes] = []
    left = limit
    # Asked for `limit` bytes at once, the stream would take that much memory before it reads the first of them.
    step = _size(stream) + 1
    while left and (piece := stream.read(min(left, step))):
        pieces.append(piece)
        left -= len(piece)
        step = STEP
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_bounded(stream: BinaryIO, limit: int, *, name: str) -> bytes:
    """Read `stream` to its end; raises `DamagedInput` if it holds more than `limit` bytes."""
    try:
        data = read_at_most(stream, limit + 1)
    except OSError as error:
        raise as_ours(error, name) from error
    if len(data) > limit:
        raise DamagedInput(f"larger than the limit of {limit} bytes", path=name)
    return data


def _size(stream: BinaryIO) -> int:
    """How many bytes the file behind `stream` says that it has; `STEP` where there is no file, or it does not tell."""
    try:
        return os.fstat(stream.fileno()).st_size or STEP
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return STEP
