# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel source tree that somebody points at: opened with care, and read for the condition."""

import difflib
import os
from pathlib import Path

import msgspec

from ejectable.advisories.source_fix import SourceFix, SourceReading
from ejectable.errors import BadInput, Missing
from ejectable.remedies.acting import Owner, acting_as, owner_of

__all__ = ["SourceTree", "inside", "open_tree"]

ENCODING = ("utf-8", "surrogateescape")  # as kernel.source reads: every byte survives


class SourceTree(msgspec.Struct, frozen=True):
    """A tree whose driver was read. `top` has no links in it."""

    given: str  # as the user spelt it
    top: Path
    reading: SourceReading
    fix: SourceFix
    owner: Owner | None = None  # as whom root works in it

    @property
    def common(self) -> Path:
        """The file that holds the condition."""
        return self.top / self.fix.folder / self.fix.file

    def again(self) -> "SourceTree":
        """The same tree, read anew."""
        return open_tree(self.given, self.fix)

    def repaired(self) -> str:
        """The file's text with the condition repaired, read again and found to be fixed.

        Raises `BadInput` where the condition is not understood.
        """
        with acting_as(self.owner):
            return self.fix.repaired(self.reading, self.top)

    def diff(self, text: str) -> tuple[str, ...]:
        """The lines of a unified diff from what is there to `text`, which `patch -p1` and `git apply` take."""
        name = f"{self.fix.folder}/{self.fix.file}"
        lines = difflib.unified_diff(
            self.reading.common.text.splitlines(), text.splitlines(), f"a/{name}", f"b/{name}", lineterm=""
        )
        return tuple(lines)


def open_tree(given: str, fix: SourceFix) -> SourceTree:
    """The tree at a path, read with its owner's rights.

    Raises `Missing` (not there, not readable), `Denied` (root, and several users share it) or `BadInput` (not a kernel,
    a trap).
    """
    try:
        top = Path(given).resolve(strict=True)
        if not top.is_dir():
            raise BadInput("expected the folder of a kernel source tree, found a file", path=given)
        owner = owner_of(top, fix.folder, ".git")
        with acting_as(owner):
            for name in fix.files:
                inside(top, f"{fix.folder}/{name}")
            reading = fix.read(top)
    except PermissionError as error:
        raise Missing(f"{error.filename or given}: may not be read by this user.", hint="Whose tree is it?") from error
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise Missing(f"{given}: no such folder.", hint="Give the top of a kernel source tree.") from error
    if reading is None:
        raise BadInput(
            f"expected the top of a kernel source tree, found no {fix.folder}/{fix.file}",
            path=given,
            hint="Give the folder that holds `drivers` and `include`.",
        )
    return SourceTree(given, top, reading, fix, owner)


def inside(top: Path, name: str) -> Path:
    """The path of a file of the tree; raises `BadInput` if a link on the way leads out of the tree."""
    path = top / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(top):
        raise BadInput(f"it is a link that leads out of the tree, to {real}", path=str(path))
    return path
