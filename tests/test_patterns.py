# SPDX-License-Identifier: GPL-2.0-or-later
"""Every regular expression takes time that grows with the line, on its own worst line, and not with its square.

Those of `crash` are timed in tests/crash, with the reader's own cuts before them.
"""

import re
from typing import Any

import pytest

from tests.patterns import is_searched, patterns, seconds, worst_line

APART = ("ejectable.crash", "ejectable.advisories.cve_2024_42134.signature")
FOUND = dict(patterns("ejectable", without=APART))
SMALL, LARGE = 1 << 12, 1 << 14
# Four times the line may take eight times as long (a busy machine, a cache), but not sixteen.
MOST_GROWTH = 10.0
# Below it nothing is told but noise; a pattern that is quadratic takes some hundred times as long.
LEAST_S = 0.005
MOST_S = 0.5


@pytest.mark.parametrize("name", FOUND)
def test_time_grows_with_the_line_and_not_with_its_square(name: str) -> None:
    pattern: re.Pattern[Any] = FOUND[name]
    searched = is_searched(name)
    first = seconds(pattern, worst_line(pattern, SMALL, searched=searched), searched=searched)
    line = worst_line(pattern, LARGE, searched=searched)
    second = seconds(pattern, line, searched=searched)
    told = f"{pattern.pattern!r} on {line[:60]!r}: {first:.4f} s, four times as long {second:.4f} s"
    assert second < max(first * MOST_GROWTH, LEAST_S), told
    assert second < MOST_S, told
