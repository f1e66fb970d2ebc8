# SPDX-License-Identifier: GPL-2.0-or-later
"""The outcome of one attempt, and how the cause of each crash event changes its result."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from ejectable.lab.case import Result
from ejectable.model import Event, GuestEvent, Phase

__all__ = ["Outcome", "conclude", "first_fatal"]

WHILE: dict[Phase, str] = {
    "boot": "while it booted",
    "use": "while the device was used",
    "plug": "while a device was plugged",
    "trigger": "while the device was taken away",
    "after": "after the device was gone",
}


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to."""

    result: Result
    detail: str
    accelerator: Literal["kvm", "tcg"]
    boot_s: float | None
    verdict_s: float | None
    cycles: int  # that were completed
    driven: Literal["legacy", "modern"] | None  # as the guest drove the device, where it was seen
    alive: bool | None  # whether the guest still answered after an Oops
    events: tuple[Event, ...]
    tail: tuple[str, ...]  # the last lines of the console
    internal_error: bool = False  # KVM gave up
    problems: tuple[str, ...] = ()
    release: str | None = None
    attributed: tuple[GuestEvent, ...] = ()  # the events again, with phase and cause
    triggered: bool = False  # the device was about to be taken away
    qemu_failed: bool = False  # QEMU was killed, or ended with an error

    @property
    def inconclusive(self) -> bool:
        """Whether the guest died of something that says nothing about the unplug, and may not die of it again."""
        if self.result == "crashed-otherwise":
            return not any(event.fatal and event.removal for event in self.attributed)
        return self.result == "no-boot" and not self.qemu_failed

    @property
    def advisory(self) -> str | None:
        """The advisory whose signature one of the events has."""
        return next((event.advisory for event in self.attributed if event.advisory), None)

    @property
    def crash(self) -> GuestEvent | None:
        """The event to tell a person of: the one that has a signature, else the first fatal one."""
        return next((event for event in self.attributed if event.advisory), first_fatal(self.attributed))


def first_fatal(events: Sequence[GuestEvent]) -> GuestEvent | None:
    """The first of these events that ended the kernel or one of its threads."""
    return next((event for event in events if event.fatal), None)


def conclude(result: Result, detail: str, events: Sequence[GuestEvent]) -> tuple[Result, str]:
    """The result and its reason, now that the cause of each event is known.

    `oops` and `panic` are left for crashes with an advisory's signature; every other one is `crashed-otherwise`.
    """
    fatal = first_fatal(events)
    if result == "no-boot" or fatal is None:
        return result, detail
    died: Result = "panic" if any(event.kind == "panic" for event in events) else "oops"
    if any(event.advisory for event in events):
        return (result, detail) if result in ("oops", "panic", "hang") else (died, detail)
    removal = next((event for event in events if event.fatal and event.removal), None)
    told = (
        f"the kernel crashed {WHILE[removal.phase]}, in the removal's path but with no advisory's signature"
        if removal
        else f"the kernel crashed {WHILE[fatal.phase]}, and nothing in the report ties that to the removal"
    )
    state = f" ({detail})" if result in ("oops", "panic") else ""
    return "crashed-otherwise", told + state
