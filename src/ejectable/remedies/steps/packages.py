# SPDX-License-Identifier: GPL-2.0-or-later
"""The step that installs packages, and removes them again."""

import re
from typing import TYPE_CHECKING, Literal

from ejectable.remedies.steps.base import System

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["InstallPackages"]

# A package, also with its architecture, and with its version as apt (`name=version`) and rpm (`name-version`) write it.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^:=-]{0,254}", re.ASCII)
RELEASE = re.compile(r"\d[\w.~+-]{0,63}", re.ASCII)


class InstallPackages(System, frozen=True, tag="install"):
    """Packages that were installed."""

    manager: Literal["apt", "dnf", "zypper"]
    new: tuple[str, ...]  # that were not there: removed when it is undone
    changed: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()  # `name=version` of what was replaced: installed again
    leftovers: str = ""  # a release of which nothing was there: what no package owns of it goes too

    def __post_init__(self) -> None:
        if not all(WORD.fullmatch(word) for word in (*self.new, *self.changed, *self.restore)):
            raise ValueError("this is no name of a package")
        if self.leftovers and not RELEASE.fullmatch(self.leftovers):
            raise ValueError("this is no release of a kernel")

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"installed {', '.join([*self.new, *self.changed])}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`; raises `Missing` where the kernel that runs is among them."""
        from ejectable.remedies.upgrade.rollback import roll_back

        roll_back(root, self.manager, self.new, self.restore, self.leftovers)
        return True
