# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fixture is read as its header says: no event missed, none invented, each for what it is."""

from pathlib import Path

import pytest

from ejectable.advisories import registry
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.model import Event, Status
from tests.crash.fixtures import FIXTURES, Expected, load

__all__: list[str] = []

WORDS = {"none": None, "yes": True, "no": False}


def _check(event: Event, status: Status, expected: Expected) -> None:
    assert event.line == expected.line, event.title
    for name, value in expected.fields.items():
        if name == "status":
            assert status == value, (name, event.why)
        elif name == "follows":
            assert (event.follows is not None) == (value == "yes"), name
        else:
            found = getattr(event, name)
            assert found == WORDS.get(value, value) or str(found) == value, (name, found, value, event.title)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_log_is_read_as_its_header_says(path: Path) -> None:
    fixture = load(path)
    judged = [judge(event, registry()) for event in read_bytes(fixture.log, fixture.name).events]
    summary = [(event.line, event.kind, event.title) for event, _ in judged]
    assert len(judged) == len(fixture.events), summary
    for (event, status), expected in zip(judged, fixture.events, strict=True):
        _check(event, status, expected)
        if "advisory" not in expected.fields:
            assert event.advisory is None, event.why
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
