# SPDX-License-Identifier: GPL-2.0-or-later
"""What every step has in common, and what a remedy declares of the steps that it may take."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from ejectable.errors import EjectableError

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["Altered", "Reach", "Step", "System"]


class Altered(EjectableError):
    """Somebody else has changed since what is to be undone: it is left as it is."""

    exit_code = 69


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step. `what` is what was done, as a part of a sentence; `before` and `after` are for the audit log."""

    @property
    @abstractmethod
    def what(self) -> str:
        """What is done, for people: `installed linux-image-...`."""

    @abstractmethod
    def undo(self, root: "host.Root") -> str:
        """Take it back; a sentence that says so, or nothing where there was nothing to take back.

        Raises `Altered`, `Missing` or `BadInput` with what is in the way.
        """


class System(Step, frozen=True):
    """A step that is made by running programs or asking an API: on the machine that this runs on only."""

    def undo(self, root: "host.Root") -> str:
        """As `Step.undo`."""
        return f"Undone: {self.what}." if self.revert(root) else ""

    @abstractmethod
    def revert(self, root: "host.Root") -> bool:
        """Take it back; whether there was anything to take back. Raises `Missing`."""


class Reach:
    """What a remedy may do: `files` are patterns (regular expressions) of whole paths, `kinds` the other steps."""

    def __init__(self, *kinds: type[System], files: Sequence[str] = (), values: Sequence[str] = ()) -> None:
        self.kinds = kinds
        self._files = tuple(files)
        self.values = frozenset(values)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{pattern})" for pattern in self._files))

    def has_file(self, path: str) -> bool:
        """Whether a file at this path may be changed."""
        return bool(self._files) and self._pattern.fullmatch(path) is not None
