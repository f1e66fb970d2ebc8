# SPDX-License-Identifier: GPL-2.0-or-later
"""Every regular expression takes time that grows with the line, on its own worst line, and not with its square."""

import re
from typing import Any

import pytest

from tests.patterns import patterns, seconds, worst_line

FOUND = dict(patterns("ejectable", without=("ejectable.cli", "ejectable.report")))
SIZES = (1 << 12, 1 << 14, 1 << 20)
# Four times the line may take eight times as long (a busy machine, a cache), but not sixteen.
MOST_GROWTH = 10.0
# Below it nothing is told but noise.
LEAST_S = 0.002
MOST_S = 2.0  # for 1 MiB


@pytest.mark.parametrize("name", FOUND)
def test_time_grows_with_the_line_and_not_with_its_square(name: str) -> None:
    pattern: re.Pattern[Any] = FOUND[name]
    small, larger, largest = SIZES
    first = seconds(pattern, worst_line(pattern, small))
    line = worst_line(pattern, larger)
    second = seconds(pattern, line)
    assert second < max(first * MOST_GROWTH, LEAST_S), f"{pattern.pattern!r} on {line[:60]!r}: {first:.4f} to {second:.4f} s"
    line = worst_line(pattern, largest)
    assert seconds(pattern, line) < MOST_S, f"{pattern.pattern!r} on {line[:60]!r}"
