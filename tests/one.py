# SPDX-License-Identifier: GPL-2.0-or-later
"""For a test that means one defect, whatever others are known: the option of a command, and the advisory itself."""

from collections.abc import Mapping

from ejectable.advisories import Advisory, choose

__all__ = ["ONE", "the_first"]

ONE = ("--advisory", "CVE-2024-42134")


def the_first() -> Mapping[str, Advisory]:
    """The first advisory alone, as `registry()` has all of them."""
    return choose([ONE[1]])
