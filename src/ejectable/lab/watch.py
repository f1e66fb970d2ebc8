# SPDX-License-Identifier: GPL-2.0-or-later
"""Feeds a console to the crash reader as it comes, and tells whether a fatal report has begun."""

from ejectable.crash import Reader
from ejectable.lab.attribution import is_fatal
from ejectable.model import Event

__all__ = ["CrashWatch"]


class CrashWatch:
    """Reads crashes from a console, line by line. `source` is the name that events give for it."""

    def __init__(self, source: str) -> None:
        self._reader = Reader(source)
        self._events: list[Event] = []

    @property
    def line(self) -> int:
        """The number of the last line, from 1."""
        return self._reader.line

    @property
    def events(self) -> tuple[Event, ...]:
        """What is complete so far."""
        return tuple(self._events)

    @property
    def busy(self) -> bool:
        """Whether a report is being told."""
        return self._reader.busy

    def fatal(self) -> tuple[Event, ...]:
        """The events so far that end a kernel or one of its threads, the one that is being told included."""
        return tuple(event for event in (*self._events, *self._reader.pending) if is_fatal(event))

    def feed(self, line: bytes) -> None:
        """Take a line, with its newline."""
        self._events += self._reader.feed(line)

    def skip(self) -> None:
        """Pass over a line that is not the kernel's, so that line numbers stay those of the transcript."""
        self._reader.skip(1)

    def finish(self) -> tuple[Event, ...]:
        """Nothing more comes: what was open is an event too."""
        self._events += self._reader.finish()
        return self.events
