# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that takes too long is ended, unless ending it would do harm."""

import os
import re
import signal

import pytest

from ejectable.errors import Missing
from ejectable.remedies.commands import run


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(Missing, match=r"did not end within 0 s\.$"):
        run(["sleep", "60"], timeout_s=0.2)


def test_a_package_manager_that_takes_too_long_is_left_at_work() -> None:
    with pytest.raises(Missing) as caught:
        run(["sleep", "60"], timeout_s=0.2, unbroken=True)
    found = re.search(r"still at work \(process (\d+)\)", caught.value.message)
    assert found
    os.kill(int(found[1]), signal.SIGKILL)  # raises where it is gone
    os.waitpid(int(found[1]), 0)
