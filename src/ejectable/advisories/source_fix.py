# SPDX-License-Identifier: GPL-2.0-or-later
"""How the source of a defect is read and repaired: what `ejectable fix source-patch` asks of an advisory."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ejectable.model import Status

if TYPE_CHECKING:
    from ejectable.kernel.source import CSource

__all__ = ["SourceFix", "SourceReading"]


class SourceReading(Protocol):
    """What a tree's source says."""

    @property
    def status(self) -> Status:
        """The word for it."""

    @property
    def detail(self) -> str:
        """The sentence for it, without a full stop."""

    @property
    def common(self) -> "CSource":
        """The file that is repaired, as it was read."""


class SourceFix(Protocol):
    """The reader and the repair; names of files are relative to `folder`, which is relative to the tree."""

    advisory: str
    module: str  # that is built from these files
    folder: str
    file: str  # the one that is repaired
    files: tuple[str, ...]  # all that are read
    defect: str  # as the end of a sentence that begins with "In TREE"
    objects: tuple[str, ...]  # of the module, where the tree's Makefile names none
    optional: tuple[tuple[str, str], ...]  # an option, and the object that it adds

    def read(self, tree: Path) -> SourceReading | None:
        """The source of a tree, read; `None` where the files are not there."""

    def repaired(self, reading: SourceReading, tree: Path) -> str:
        """The text of `file`, repaired, read again and found fixed. Raises `BadInput` where that is not certain."""

    def no_need(self, reading: SourceReading) -> str:
        """Why a tree that is safe needs no repair, as a sentence."""
