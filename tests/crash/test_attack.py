# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is done to a log of the defect on its way, a safe word is never said of it."""

import random

import pytest

from ejectable.advisories import choose
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.errors import EjectableError
from ejectable.model import SAFE, Status, worst
from tests.attack.logs import DAMAGES, DRESSES, apply, text_of
from tests.attack.reports import reports, shows

__all__: list[str] = []

PAIRS = 400


def _word(data: bytes) -> Status | None:
    """What is said of a log; `None` where it is refused or holds nothing."""
    try:
        log = read_bytes(data, "log")
    except EjectableError:
        return None
    if log.suspicious is not None:
        return Status.UNKNOWN
    return worst([judge(event, choose(())).status for event in log.events] or [Status.NOT_AFFECTED])


def test_the_undressed_fixtures_are_the_defect() -> None:
    assert len(reports()) >= 15
    assert {_word(text.encode()) for text in reports().values()} == {Status.AFFECTED}


@pytest.mark.parametrize("name", DRESSES)
def test_a_dress_costs_nothing(name: str) -> None:
    words = [_word(apply(name, text, 1)) for text in reports().values()]
    assert not SAFE.intersection(word for word in words if word is not None)
    assert words.count(Status.AFFECTED) >= 0.85 * len(words)


def test_the_full_verdict_comes_out_of_nearly_every_dress() -> None:
    words = [_word(apply(name, text, 1)) for name in DRESSES for text in reports().values()]
    assert words.count(Status.AFFECTED) >= 0.95 * len(words)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_never_makes_it_safe(name: str) -> None:
    for report, text in reports().items():
        for seed in range(4):
            data = apply(name, text, seed)
            assert _word(data) not in SAFE, (report, seed)


def test_two_of_them_together_never_make_it_safe() -> None:
    rng = random.Random(7)
    every, names = sorted({**DAMAGES, **DRESSES}), sorted(reports())
    for seed in range(PAIRS):
        report, first, second = rng.choice(names), rng.choice(every), rng.choice(every)
        between = text_of(apply(first, reports()[report], seed))
        assert between is not None
        data = apply(second, between, seed)
        assert not shows(data) or _word(data) not in SAFE, (report, first, second, seed)
