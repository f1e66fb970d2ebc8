# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of the corpus that fits into `make test`: ejectable says of real kernels what is true of them."""

import os

import pytest

from corpus.judge import judge
from corpus.list import QUICK, Item, entry
from ejectable.errors import Missing

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("item", QUICK, ids=lambda item: item.name)
def test_verdict_is_the_truth_and_rests_on_more_than_a_version(item: Item) -> None:
    try:
        line = entry(item)
    except Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.message} {error.hint or ''}")
    judgement = judge(line)
    assert judgement.verdict == line.expected, judgement.said.reason
    assert set(judgement.said.kinds) - {"version", "changelog"}, "no finding rests on a version alone"
