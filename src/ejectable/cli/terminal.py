# SPDX-License-Identifier: GPL-2.0-or-later
"""The two streams of a command: the answer on standard output, progress on standard error, colour only for eyes."""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from ejectable.cli.options import Common
from ejectable.report.text import clean, line_for_terminal

__all__ = ["Progress", "Terminal", "complain"]

PROGRESS_AFTER_S = 1.0
REFRESH_HZ = 4  # a serial console has a thousand characters a second to give


class Terminal:
    """Where a command writes. Rich is imported only when a progress bar is really shown."""

    def __init__(self, common: Common) -> None:
        self.common = common

    @property
    def colour(self) -> bool:
        """Whether standard output may be coloured: a terminal, no --no-color, no NO_COLOR (https://no-color.org)."""
        return (
            self.common.color
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
            and _is_terminal(sys.stdout)
        )

    @property
    def width(self) -> int:
        """Columns to fill: the terminal's, at most 100; 80 where they are not known, or the output goes elsewhere."""
        columns = 0
        if _is_terminal(sys.stdout):
            with suppress(OSError, ValueError):
                columns = os.get_terminal_size(sys.stdout.fileno()).columns
        # A serial console says 0.
        return max(40, min(columns, 100)) if columns else 80

    def print(self, *lines: str) -> None:
        """Write lines of the answer."""
        _write(sys.stdout, lines)
        sys.stdout.flush()

    def document(self, data: bytes) -> None:
        """Write an encoded document: always UTF-8, whatever the locale says."""
        binary = getattr(sys.stdout, "buffer", None)
        if binary is None:
            sys.stdout.write(data.decode())
        else:
            sys.stdout.flush()
            binary.write(data)
        sys.stdout.flush()

    def note(self, message: str) -> None:
        """Say something beside the answer, on standard error; never with --quiet."""
        if not self.common.quiet:
            _write(sys.stderr, [f"ejectable: {message}"])

    def error(self, message: str, hint: str | None = None) -> None:
        """Say on standard error what could not be had; with --quiet too."""
        complain(message, hint)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator["Progress"]:
        """Show how far it is, on standard error, once it takes longer than a second."""
        shown = not self.common.quiet and _is_terminal(sys.stderr)
        progress = Progress(label, total, shown=shown)
        try:
            yield progress
        finally:
            progress.close()


class Progress:
    """A bar (or a spinner, where no total is known) that appears after a second, and only on a terminal."""

    def __init__(self, label: str, total: int | None, *, shown: bool) -> None:
        self._label = clean(label)
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._bar: Any = None
        self._task: Any = None
        self._closed = False
        self._timer: threading.Timer | None = None
        if shown:
            self._timer = threading.Timer(PROGRESS_AFTER_S, self._show)
            self._timer.daemon = True
            self._timer.start()

    def advance(self, steps: int = 1, label: str | None = None) -> None:
        """Say that `steps` more are done, and what comes next."""
        with self._lock:
            self._done += steps
            self._label = clean(label) if label else self._label
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done, description=self._label)

    def close(self) -> None:
        """Take the bar away."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        with self._lock:
            if self._closed:
                return
            counted = (BarColumn(), MofNCompleteColumn()) if self._total else ()
            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                *counted,
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=REFRESH_HZ,
            )
            self._task = self._bar.add_task(self._label, total=self._total, completed=self._done)
            self._bar.start()


def complain(message: str, hint: str | None = None) -> None:
    """Say on standard error what went wrong and what helps; where there is no such stream, nothing."""
    with suppress(OSError, ValueError, AttributeError):
        _write(sys.stderr, [f"ejectable: {message}", *([f"  {hint}"] if hint else [])])


def _write(stream: TextIO, lines: Sequence[str]) -> None:
    """The way to a stream: each line made harmless, and in the stream's own encoding."""
    text = "".join(f"{line_for_terminal(line)}\n" for line in lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # a closed stream
        return False
