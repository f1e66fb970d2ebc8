# SPDX-License-Identifier: GPL-2.0-or-later
"""A log may end anywhere: no prefix of a crash is taken for a healthy machine, or for another defect."""

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import judge
from ejectable.crash import Reader
from ejectable.model import Event, Status
from tests.crash.fixtures import FIXTURES, Fixture, load

__all__: list[str] = []

WHOLE = [load(path) for path in FIXTURES if path.stem.startswith("defect-") and "cut" not in path.stem]
NEAR = [load(path) for path in FIXTURES if path.stem.startswith("near-")]


def _events(log: bytes) -> list[Event]:
    reader = Reader("log")
    return reader.feed(log) + reader.finish()


def _lines(fixture: Fixture) -> list[bytes]:
    return fixture.log.splitlines(keepends=True)


@pytest.mark.parametrize("fixture", [f for f in WHOLE if "ecs" not in f.name], ids=lambda fixture: fixture.name)
def test_the_defect_cut_off_at_every_line_is_never_called_safe(fixture: Fixture) -> None:
    lines = _lines(fixture)
    first = fixture.events[0].line
    decided = False
    for end in range(first, len(lines) + 1):
        events = _events(b"".join(lines[:end]))
        assert events, f"an event as soon as line {first} is there (cut after {end})"
        assert events[0].line == first
        said = judge(events[0], choose(()))
        status = said.status
        assert status in (Status.AFFECTED, Status.UNKNOWN), f"cut after line {end}: {status}, {said.why}"
        if decided:
            assert status is Status.AFFECTED, f"what was recognised stays recognised (cut after {end})"
        decided = status is Status.AFFECTED
    assert decided


@pytest.mark.parametrize("fixture", NEAR, ids=lambda fixture: fixture.name)
def test_a_near_miss_cut_off_at_every_line_is_never_the_defect(fixture: Fixture) -> None:
    lines = _lines(fixture)
    for end in range(1, len(lines) + 1):
        for event in _events(b"".join(lines[:end])):
            said = judge(event, choose(()))
            cut_at_caller = event.truncated and event.trace and event.trace[-1].function == "vp_del_vqs"
            assert said.advisory is None or cut_at_caller, f"cut after line {end}: {said.why}"


# A cloud's answer is unwrapped whole, not in pieces.
@pytest.mark.parametrize("fixture", [f for f in WHOLE[::6] if "ecs" not in f.name], ids=lambda fixture: fixture.name)
def test_what_comes_in_pieces_gives_the_same_events(fixture: Fixture) -> None:
    whole = _events(fixture.log)
    for size in (1, 7, 100, 4096):
        reader = Reader("log")
        events = [
            event for at in range(0, len(fixture.log), size) for event in reader.feed(fixture.log[at : at + size])
        ]
        assert events + reader.finish() == whole
