# SPDX-License-Identifier: GPL-2.0-or-later
"""What one wording of the kernel means: the kind of event, its title, and the way to the function to blame."""

import re
from typing import Literal

import msgspec

from ejectable.model import EventKind

__all__ = ["BUG", "Match", "OopsPattern", "oops_pattern"]

Way = Literal["stack", "named", "at", "hang", "stall", "leak", "none", "race", "rcu-usage", "last"]
Role = Literal["head", "die", "panic"]


class OopsPattern(msgspec.Struct, frozen=True):
    """One wording. `title` may use {0}, {1}.. for groups, {f} for the function, {access} for Read or Write."""

    name: str
    regex: re.Pattern[str]
    kind: EventKind
    title: str
    way: Way = "stack"
    role: Role = "head"
    # A trap into the kernel: a die line (`Oops: 0000 [#1]`) and registers belong to it.
    trap: bool = False
    # The report has no stack trace of its own, so that a missing one is no damage.
    bare: bool = False


class Match(msgspec.Struct, frozen=True):
    """A pattern that a line matches."""

    pattern: OopsPattern
    groups: tuple[str | None, ...]


def oops_pattern(  # noqa: PLR0917  (a row of a table; its columns are positions)
    name: str,
    pattern: str,
    kind: EventKind,
    title: str,
    way: Way = "stack",
    role: Role = "head",
    *,
    trap: bool = False,
    bare: bool = False,
) -> OopsPattern:
    """One row of the tables."""
    return OopsPattern(name, re.compile(pattern), kind, title, way, role, trap, bare)


# "BUG: " with no letter or underscore in front: "DEBUG: ", "ODEBUG: ", "Boot_DEBUG: " are not meant.
BUG = r"(?<![A-Za-z_])BUG: "
