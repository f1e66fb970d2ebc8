# SPDX-License-Identifier: GPL-2.0-or-later
"""What the crash of a defect looks like, as data: where it faults, what stands in the trace, and what must not.

    signature = Signature(
        kinds=("null-deref", "paging-fault"), at=r"vp_del_vqs?|__list_del_entry_valid_or_report",
        needs=("vp_del_vqs", "virtballoon_(?:remove|freeze)"), address=8,
        told="the record of a queue that has no name was read",
    )

A deadlock shows as two tasks that hang: `pair` then says what must stand in the other one's trace.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from ejectable.model import Doubt, DoubtKind, Event, Status, earned

if TYPE_CHECKING:
    from ejectable.advisories.recognition import Recognition

__all__ = ["Recogniser", "Signature"]

SURE, ALONE = 0.9, 0.6  # confidence: all of it was seen; of two tasks that hang only one
GARBLED = 0.15
# Of the report itself: with one of these, a trace that does not match may still be the crash.
OPEN = frozenset((DoubtKind.CUT_OFF, DoubtKind.UNPARSED, DoubtKind.AMBIGUOUS, DoubtKind.MISSING))


class Recogniser(Protocol):
    """Says of an event whether it is the crash of one defect."""

    def recognise(self, event: Event, beside: Sequence[Event] = ()) -> "Recognition":
        """What it says; `beside` are the other events of the same log."""


class Signature(msgspec.Struct, frozen=True):
    """Patterns match whole names of functions, without what compilers append to them.

    `needs` must each match a reliable frame, `not_there` none; `pair` patterns must each match in one other event of
    the same log, which hangs too.
    """

    kinds: tuple[str, ...]
    at: str  # the function that faulted, or one of the innermost four
    told: str  # how it is known, as a phrase
    needs: tuple[str, ...] = ()
    not_there: tuple[str, ...] = ()
    address: int | None = None  # that was read, written or called: the member's offset from NULL
    pair: tuple[str, ...] = ()

    def recognise(self, event: Event, beside: Sequence[Event] = ()) -> "Recognition":
        """`affected` where all of it was seen, `unknown` where what is missing of the report may hide it."""
        from ejectable.advisories.recognition import Recognition

        names = [_base(frame.function) for frame in event.trace if frame.reliable]
        where = _base((event.ip or "").partition("+")[0])
        inner = (where, event.function or "", *names[:4])
        at = re.compile(self.at)
        if event.kind not in self.kinds or not any(at.fullmatch(name) for name in inner if name):
            return self._other(event, names)
        missing = [need for need in self.needs if not any(re.fullmatch(need, name) for name in (where, *names))]
        wrong = self.address is not None and event.address is not None and int(event.address, 16) != self.address
        if wrong or any(re.fullmatch(one, name) for one in self.not_there for name in names):
            return Recognition(Status.NOT_AFFECTED, 0.0, "the fault is another one")
        if missing:
            return self._other(event, names, near=True)
        confidence = SURE - (GARBLED if event.corrupted else 0)
        why = self.told
        if self.pair:
            other = next((one for one in beside if one is not event and self._is_other_half(one)), None)
            if other is None:
                confidence, why = ALONE, f"{why}; the other task that it waits for is not in the log"
            else:
                why = f"{why}; {other.process or 'the other task'} hangs in {other.function}, as it must"
        return Recognition(Status.AFFECTED, round(confidence, 2), why)

    def _is_other_half(self, event: Event) -> bool:
        names = [_base(frame.function) for frame in event.trace]
        return event.kind in self.kinds and all(any(re.fullmatch(one, name) for name in names) for one in self.pair)

    def _other(self, event: Event, names: Sequence[str], *, near: bool = False) -> "Recognition":
        """Something else, unless the report is damaged just where this crash would show."""
        from ejectable.advisories.recognition import Recognition

        some = near or any(re.fullmatch(need, name) for need in self.needs for name in names)
        hidden: tuple[Doubt, ...] = ()
        if event.kind in self.kinds and some and (event.corrupted or event.truncated):
            hidden = tuple(doubt for doubt in event.doubts if doubt.kind in OPEN)
        status = earned(Status.NOT_AFFECTED, hidden)
        why = "what is missing of the report may hide it" if hidden else "it is something else"
        return Recognition(status, 0.0, why, doubts=hidden)


def _base(name: str) -> str:
    """Without what compilers append: vp_del_vqs.llvm.123."""
    return (name.split(".", 1)[0] if name[:1] != "." else name)[:80]
