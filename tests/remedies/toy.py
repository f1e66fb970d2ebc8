# SPDX-License-Identifier: GPL-2.0-or-later
"""A remedy that may do what the tests of changes do."""

from typing import ClassVar, Literal

from ejectable.model import Applied, Remedy
from ejectable.remedies import Request, Situation
from ejectable.remedies.changes import Changes
from ejectable.remedies.remediation import Remediation
from ejectable.remedies.steps import LoadModule, Reach, StartUnits

__all__ = ["NAMES", "TOYS", "Toy"]

NAMES = ("test", "another", "other")
# For a child: as the fixture of this test's module does it.
TOYS = f"from ejectable.remedies import registry; registry.REMEDIES.update(dict.fromkeys({NAMES}, '{__name__}:Toy'))\n"


class Toy(Remediation):
    """It may write any file below /etc, and start our units."""

    name: ClassVar[str] = "test"
    durable: ClassVar[bool] = False
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "tree"
    reach: ClassVar[Reach] = Reach(
        StartUnits, LoadModule, files=[r"/etc/.*"], values=["/proc/sys/kernel/panic", "/proc/sys/kernel/linked"]
    )

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """Nobody plans it."""
        raise NotImplementedError

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Nobody applies it."""
        raise NotImplementedError
