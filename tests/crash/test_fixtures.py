# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fixture is read as its header says: no event missed, none invented, each for what it is."""

from pathlib import Path

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.model import Event, Judgement
from tests.crash.fixtures import FIXTURES, Expected, load

__all__: list[str] = []

JUDGED = frozenset(("advisory", "confidence", "why", "known_as"))
WORDS = {"none": None, "yes": True, "no": False}


def _check(event: Event, said: Judgement, expected: Expected) -> None:
    assert event.line == expected.line, event.title
    for name, value in expected.fields.items():
        if name == "status":
            assert said.status == value, (name, said.why)
        elif name == "follows":
            assert (event.follows is not None) == (value == "yes"), name
        else:
            found = getattr(said if name in JUDGED else event, name)
            assert found == WORDS.get(value, value) or str(found) == value, (name, found, value, event.title)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_log_is_read_as_its_header_says(path: Path) -> None:
    fixture = load(path)
    judged = [(event, judge(event, choose(()))) for event in read_bytes(fixture.log, fixture.name).events]
    summary = [(event.line, event.kind, event.title) for event, _ in judged]
    assert len(judged) == len(fixture.events), summary
    for (event, said), expected in zip(judged, fixture.events, strict=True):
        _check(event, said, expected)
        if "advisory" not in expected.fields:
            assert said.advisory is None, said.why
        if "truncated" not in expected.fields:
            assert not event.truncated, "nothing is missing"
        if "corrupted" not in expected.fields:
            assert not event.corrupted, "nothing is garbled"


def test_there_are_as_many_as_were_promised() -> None:
    fixtures = [load(path) for path in FIXTURES]
    defects = [one for one in fixtures if any(e.fields.get("advisory", "none") != "none" for e in one.events)]
    near = [one for one in fixtures if one.name.startswith("near-")]
    assert len(fixtures) >= 120
    assert len(defects) >= 15
    assert len(near) >= 15
