# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `ejectable lab` while it runs: on a terminal a live one, elsewhere a line for each run."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from ejectable.cli.terminal import Terminal
from ejectable.lab.case import Case
from ejectable.lab.matrix import Plan
from ejectable.lab.session import Done
from ejectable.report.text import clean

__all__ = ["LiveTable"]

MOST_ROWS = 30
REFRESH_HZ = 4
_STYLES = {
    "survived": "green",
    "oops": "bold red",
    "panic": "bold red",
    "hang": "yellow",
    "crashed-otherwise": "yellow",
}


class LiveTable:
    """Shown on standard error, so that the answer stays alone on standard output."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._rows: dict[Case, tuple[str, float]] = {}
        self._done: dict[Case, Done] = {}
        self._total = 0
        self._live: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def planned(self, plan: Plan) -> None:
        """Say what will not be tried, and why; then begin to show."""
        self._total = len(plan.cases)
        for reason, count in plan.reasons:
            self._terminal.note(f"skipped {count}: {reason}")
        if plan.cases and not self._terminal.common.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, no_color=not self._terminal.common.color)
            self._live = Live(
                console=console, get_renderable=self._table, refresh_per_second=REFRESH_HZ, transient=True
            )
            self._live.start()

    def stage(self, case: Case, stage: str) -> None:
        """A case has come to another stage."""
        began = self._rows[case][1] if case in self._rows else time.monotonic()
        self._rows[case] = (stage, began)

    def finished(self, case: Case, done: Done) -> None:
        """A case is over."""
        self._done[case] = done
        if self._live is None and self._total > 1:
            count = f"{len(self._done)}/{self._total}"
            self._terminal.note(f"{count} {case.name}: {done.run.result}")

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{len(self._done)} of {self._total} runs done", title_justify="left")
        for heading in ("machine", "device", "mode", "trigger", "panic", "s", "now"):
            table.add_column(heading)
        for case, (stage, began) in list(self._rows.items())[-MOST_ROWS:]:
            done = self._done.get(case)
            seconds = (done.run.verdict_s if done else None) or time.monotonic() - began
            word = done.run.result if done else stage
            style = _STYLES.get(word, "")
            trigger = case.trigger + (" +I/O" if case.under_io else "")
            row = (case.machine, case.device, case.mode, trigger, str(case.panic_on_oops), f"{seconds:.0f}")
            table.add_row(*(Text(clean(cell)) for cell in row), Text(clean(word), style=style))
        return table
