# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of kernels against advisories: what is true comes from changelogs, and what is said is held against it."""

from pathlib import Path

import pytest

from corpus.advisories_matrix import Row, expected, table, truths
from ejectable.errors import Missing
from tests.advisories.test_probe import missing

SPIN, MANA, INDEX, AVQ = "virtio-net-cleantx-spin", "CVE-2026-53297", "CVE-2026-64457", "CVE-2024-53092"


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("name", "version", "true"),
    [
        (MANA, "6.1.190-1", "affected"),
        (MANA, "6.1.192-2", "fixed"),
        (MANA, "6.12.111-1~deb12u1", "affected"),
        (MANA, "6.12.115-2~deb12u1", "fixed"),
        (SPIN, "6.1.192-2", "affected"),
        (SPIN, "6.12.117-1~deb12u1", "fixed"),
        (INDEX, "6.1.192-2", "not_affected"),
        (INDEX, "6.12.100-1~deb12u1", "fixed"),
        (AVQ, "6.12.100-1~deb12u1", "fixed"),
        (INDEX, "6.12.95-1~deb12u1", "affected"),
        (INDEX, "6.17.13-1", "affected"),
        ("CVE-2024-57946", "5.10.218-1", "affected"),
        ("CVE-2025-38064", "5.10.218-1", None),
    ],
)
def test_the_changelog_says_which_package_has_a_fix(name: str, version: str, true: str | None) -> None:
    try:
        assert expected(truths()[name], version) == true
    except Missing as error:
        missing(error)


def test_a_word_that_is_not_true_is_counted_and_marked() -> None:
    row = Row("one", Path("one"), {SPIN: "affected", MANA: "fixed"})
    text, wrong = table([(row, {SPIN: ("fixed", "it has the fix"), MANA: ("unknown", "no module")})], [SPIN, MANA])
    assert wrong == 1
    assert "| one | F `!` | ? |" in text
    assert "fixed instead of affected" in text
    assert "1 kernels, 2 words held against what is true: 1 wrong, 1 unknown." in text
    assert table([(row, {SPIN: ("affected", ""), MANA: ("fixed", "")})], [SPIN, MANA])[1] == 0
