# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest must be like to show a defect, as data, and what runs in guests prove about it."""

from collections.abc import Mapping, Sequence

import msgspec

from ejectable.model import Claim, Run

__all__ = ["Scenario"]


class Scenario(msgspec.Struct, frozen=True):
    """`devices`, `modes` and `triggers` are words of the lab; an empty tuple means any of them.

    `properties` are given to the device in QEMU. `driven`: only a run whose device the guest drove so can show it.
    """

    subject: str  # what can show it, as a phrase: "a legacy device", "a balloon that reports free pages"
    devices: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()  # the first is what is tried where nothing else is asked for
    triggers: tuple[str, ...] = ()
    driven: str | None = None
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    times: int = 1  # how often to try: a race
    always: bool = True  # whether each such run must crash; else one that survives proves nothing

    def exercised(self, run: Run) -> bool:
        """Whether a run did what can show the defect."""
        if (
            self.driven is not None
            and (run.driven or ("legacy" if run.mode in self.modes else "modern")) != self.driven
        ):
            return False
        if any(run.properties.get(name) != value for name, value in self.properties.items()):
            return False
        wanted = ((self.devices, run.device), (self.triggers, run.trigger))
        return all(not words or word in words for words, word in wanted)

    def judge(self, runs: Sequence[Run], name: str) -> Claim:
        """What the runs say of the advisory of this id.

        One crash confirms it; it is refuted where every run that can show it went well, unless it is a race.
        """
        tried = [run for run in runs if self.exercised(run)]
        matched = [run for run in runs if run.advisory == name]
        survived = [run for run in tried if run.result == "survived"]
        if matched:
            crash = matched[0].crash or "an Oops"
            line = f"{name} is confirmed: {_of(matched, runs)} ended in its crash ({crash})."
            return Claim(name, "confirmed", line)
        if not tried:
            line = f"Nothing is said about {name}: no run had {self.subject}, and only those can show it."
            return Claim(name, "open", line, exercised=False)
        if len(survived) == len(tried) and self.always:
            line = f"{name} is refuted for what was tried: {_of(survived, tried)} with {self.subject} survived."
            return Claim(name, "refuted", line)
        if len(survived) == len(tried):
            line = f"{name} is open: {_of(survived, tried)} with {self.subject} survived, and it is a race."
            return Claim(name, "open", line)
        words = ", ".join(sorted({run.result for run in tried if run.result != "survived"}))
        line = f"{name} is neither confirmed nor refuted: {self.subject} ended in {words}, without its crash."
        return Claim(name, "open", line)


def _of(some: Sequence[Run], every: Sequence[Run]) -> str:
    return f"{len(some)} of {len(every)} run{'s' if len(every) > 1 else ''}"
