# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of one run in the machine, while it goes on."""

from collections import deque

import msgspec

from ejectable.kernel.machine.bounds import Bounds
from ejectable.kernel.machine.outcome import Call, Fault, Load, Trap

__all__ = ["Frame", "Run"]


class Frame(msgspec.Struct, frozen=True):
    """A call that has not returned: where it was made, where it goes back to, and the stack pointer then."""

    site: int
    back: int
    sp: int


class Run:
    """What one call of a function has done so far."""

    def __init__(self, function: str, bounds: Bounds) -> None:
        self.function = function
        self.bounds: set[str] = set()  # names of those that were reached
        self.exit: str | None = None
        self.why = ""
        self.value: int | None = None
        self.fault: Fault | None = None
        self.trap: Trap | None = None
        self.calls: list[Call] = []
        self.warnings: list[Trap] = []
        self.frames: list[Frame] = []
        self.trace: deque[int] = deque(maxlen=bounds.trace)
        self.loads: deque[Load] = deque(maxlen=bounds.loads)
        self.entered: set[int] = set()
        self.names: set[str] = set()
        self.inside: dict[int, bool] = {}
        self.traps: dict[int, int] = {}
        self.resume: int | None = None
        self.refused: str | None = None  # why Unicorn would not go on
        self.count = 0
        self.last = 0
        self.next = 0

    def following(self) -> int | None:
        """Where to go on; `None` at the end."""
        return self.resume if self.exit is None else None
