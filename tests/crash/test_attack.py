# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is done to a log of the defect on its way, a safe word is never said of it."""

import random
import re
from functools import cache

import pytest

from ejectable.advisories import registry
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.errors import EjectableError
from ejectable.model import SAFE, Status, worst
from tests.attack.logs import DAMAGES, DRESSES, apply
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

PAIRS = 400
# What a log must still hold to be one of the defect: the call, or the way to it.
STILL = re.compile(rb"vp_del_vqs\+|virt\w+_(?:remove|freeze)\+|remove_vq_common\+")


@cache
def _defects() -> dict[str, str]:
    """The fixtures of the defect that are dmesg as it is printed, complete."""
    found = {}
    for path in FIXTURES:
        if path.stem.startswith("defect-") and "cut" not in path.stem:
            log = load(path).log
            if log.startswith(b"["):
                found[path.stem] = log.decode("utf-8", "replace")
    return found


def _word(data: bytes) -> Status | None:
    """What is said of a log; `None` where it is refused or holds nothing."""
    try:
        log = read_bytes(data, "log")
    except EjectableError:
        return None
    if log.suspicious is not None:
        return Status.UNKNOWN
    return worst([judge(event, registry()).status for event in log.events] or [Status.NOT_AFFECTED])


def test_the_undressed_fixtures_are_the_defect() -> None:
    assert len(_defects()) >= 15
    assert {_word(text.encode()) for text in _defects().values()} == {Status.AFFECTED}


@pytest.mark.parametrize("name", DRESSES)
def test_a_dress_costs_nothing(name: str) -> None:
    words = [_word(apply(name, text, 1)) for text in _defects().values()]
    assert not SAFE.intersection(word for word in words if word is not None)
    assert words.count(Status.AFFECTED) >= 0.9 * len(words)


def test_the_full_verdict_comes_out_of_nearly_every_dress() -> None:
    words = [_word(apply(name, text, 1)) for name in DRESSES for text in _defects().values()]
    assert words.count(Status.AFFECTED) >= 0.95 * len(words)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_never_makes_it_safe(name: str) -> None:
    for fixture, text in _defects().items():
        for seed in range(4):
            data = apply(name, text, seed)
            word = _word(data)
            if STILL.search(data) and not _lost_its_only_witness(fixture, data):
                assert word not in SAFE, (fixture, seed)


def test_two_of_them_together_never_make_it_safe() -> None:
    rng = random.Random(7)
    names = sorted(_defects())
    for seed in range(PAIRS):
        fixture, damage, dress = rng.choice(names), rng.choice(sorted(DAMAGES)), rng.choice(sorted(DRESSES))
        damaged = apply(damage, _defects()[fixture], seed)
        if STILL.search(damaged) and not _lost_its_only_witness(fixture, damaged):
            word = _word(apply(dress, damaged.decode("utf-8", "replace"), seed))
            assert word not in SAFE, (fixture, damage, dress, seed)


def _lost_its_only_witness(fixture: str, data: bytes) -> bool:
    """Where nothing below vp_del_vqs() speaks of virtio, a log without its frame is no log of the defect any more."""
    return fixture == "defect-unknown-caller" and b"vp_del_vqs+" not in data
