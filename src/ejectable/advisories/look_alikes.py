# SPDX-License-Identifier: GPL-2.0-or-later
"""Other known defects that crash in the same place, told apart by what their crash needs (`facts.toml`)."""

import re
from collections.abc import Sequence

import msgspec

from ejectable.advisories.facts import LookAlike
from ejectable.model import Event

__all__ = ["Known", "look_alike"]


class Known(msgspec.Struct, frozen=True):
    """A known defect that an event is."""

    name: str  # its CVE, or its title
    why: str  # how it is told
    fix: str  # what repairs it, as a sentence


def look_alike(event: Event, names: Sequence[str], rows: Sequence[LookAlike]) -> Known | None:
    """The known defect that an event is, by where it faulted, its kind, and the functions that must stand below.

    `names` are the functions of the trace that the unwinder does not doubt, innermost first.
    """
    where = (event.ip or "").partition("+")[0].split(".", 1)[0]
    for row in rows:
        at = re.compile(row.at)
        inner = next((name for name in (where, event.function or "", *names[:4]) if at.fullmatch(name)), None)
        if inner is None or event.kind not in row.kinds:
            continue
        if all(any(re.fullmatch(need, name) for name in (where, *names)) for need in row.needs):
            name = row.id if row.id.startswith("CVE-") else row.title
            return Known(name, row.told, f"{row.id if name == row.id else 'It'} is {row.fix}.")
    return None
