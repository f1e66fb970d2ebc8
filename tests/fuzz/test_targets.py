# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fuzz target takes what once broke it, its own seeds, and seeds that were cut off or had bits flipped."""

import random
from pathlib import Path

import pytest

from fuzz.seeds import seeds
from fuzz.targets import TARGETS, run_target

REGRESSIONS = Path(__file__).parents[2] / "fuzz" / "regressions"


def _saved() -> list[Path]:
    return sorted(path for path in REGRESSIONS.rglob("*") if path.is_file())


def test_every_folder_of_regressions_belongs_to_a_target() -> None:
    assert {path.name for path in REGRESSIONS.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.parametrize("path", _saved(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_parser_does_so_no_more(path: Path) -> None:
    run_target(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_seed_is_refused_in_words_or_read(target: str) -> None:
    chance = random.Random(target)
    for seed in list(seeds(target))[:40] or [bytes(4096)]:
        run_target(target, seed)
        for _ in range(6):
            damaged = bytearray(seed[: chance.randrange(len(seed) + 1)] if chance.random() < 0.4 else seed)
            for _ in range(chance.choice((1, 4, 32)) if damaged else 0):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            run_target(target, bytes(damaged))
