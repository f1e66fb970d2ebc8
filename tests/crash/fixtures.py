# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixtures: one file each, the expected answer on top, the raw log below a line of three dashes.

what: a sentence
source: how the log was collected
event: 12                 the line of an event in the raw log; events in order
  kind: null-call         what is expected of it; "none" for null, "follows: yes" for a link to the first
"""

from pathlib import Path

import msgspec

__all__ = ["FIXTURES", "Expected", "Fixture", "load"]

FOLDER = Path(__file__).parent / "fixtures"
FIXTURES = sorted(FOLDER.glob("*.txt"))


class Expected(msgspec.Struct):
    """One event that must be found."""

    line: int
    fields: dict[str, str]


class Fixture(msgspec.Struct):
    """One fixture."""

    name: str
    what: str
    events: list[Expected]
    log: bytes


def load(path: Path) -> Fixture:
    """Read one."""
    head, _, log = path.read_bytes().partition(b"\n---\n")
    events: list[Expected] = []
    what = ""
    for line in head.decode().splitlines():
        key, _, value = line.partition(": ")
        if key == "what":
            what = value
        elif key == "event":
            events.append(Expected(int(value), {}))
        elif key.startswith("  "):
            events[-1].fields[key.strip()] = value
    return Fixture(path.stem, what, events, log)
