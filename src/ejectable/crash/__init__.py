# SPDX-License-Identifier: GPL-2.0-or-later
"""A log, read: inputs → lines → reports → events.

`Reader` takes bytes as they come and gives events as they are complete; `read_events` reads a stream to its end.
"""

from collections.abc import Iterator
from typing import BinaryIO

from ejectable.crash.reader import Reader
from ejectable.model import Event

__all__ = ["Reader", "read_events"]


def read_events(stream: BinaryIO, *, source: str = "-") -> Iterator[Event]:
    """The events of a log that is read to its end. Raises `BadInput` where it is no log at all."""
    from ejectable.crash.logs import read_stream

    yield from read_stream(stream, source).events
