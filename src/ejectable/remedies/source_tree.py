# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel source tree that somebody points at: opened with care, and read for the condition."""

import difflib
import os
from pathlib import Path

import msgspec

from ejectable.advisories.cve_2024_42134.repair import repaired
from ejectable.advisories.cve_2024_42134.source import COMMON, FILES, FOLDER, Reading, judge, read
from ejectable.errors import BadInput, Missing
from ejectable.kernel.source import CSource, read_source
from ejectable.model import Status
from ejectable.remedies.acting import Owner, acting_as, owner_of

__all__ = ["SourceTree", "inside", "open_tree"]

ENCODING = ("utf-8", "surrogateescape")  # as kernel.source reads: every byte survives


class SourceTree(msgspec.Struct, frozen=True):
    """A tree whose driver was read. `top` has no links in it."""

    given: str  # as the user spelt it
    top: Path
    reading: Reading
    owner: Owner | None = None  # as whom root works in it

    @property
    def common(self) -> Path:
        """The file that holds the condition."""
        return self.top / FOLDER / COMMON

    @property
    def is_redesigned(self) -> bool:
        """Whether the callback's place was taken by a function that asks for the feature first, as v6.11 has it."""
        return self.reading.status is Status.NOT_AFFECTED and self.reading.common.function("vp_is_avq") is not None

    def again(self) -> "SourceTree":
        """The same tree, read anew."""
        return open_tree(self.given)

    def repaired(self) -> str:
        """The file's text with the condition repaired, read again and found to be fixed.

        Raises `BadInput` where the condition is not understood.
        """
        text = repaired(self.reading)
        with acting_as(self.owner):
            header, legacy = (read_source(self.top / FOLDER / name) for name in FILES[1:])
        after = judge(CSource(text), header, legacy) if header else self.reading
        if after.status is not Status.FIXED:
            raise BadInput(
                f"a test in front of the call would not be enough ({after.detail}); nothing was changed",
                path=str(self.common),
            )
        return text

    def diff(self, text: str) -> tuple[str, ...]:
        """The lines of a unified diff from what is there to `text`, which `patch -p1` and `git apply` take."""
        name = f"{FOLDER}/{COMMON}"
        lines = difflib.unified_diff(
            self.reading.common.text.splitlines(), text.splitlines(), f"a/{name}", f"b/{name}", lineterm=""
        )
        return tuple(lines)


def open_tree(given: str) -> SourceTree:
    """The tree at a path, read with its owner's rights.

    Raises `Missing` (not there, not readable), `Denied` (root, and several users share it) or `BadInput` (not a kernel,
    a trap).
    """
    try:
        top = Path(given).resolve(strict=True)
        if not top.is_dir():
            raise BadInput("expected the folder of a kernel source tree, found a file", path=given)
        owner = owner_of(top, FOLDER, ".git")
        with acting_as(owner):
            for name in FILES:
                inside(top, f"{FOLDER}/{name}")
            reading = read(top)
    except PermissionError as error:
        raise Missing(f"{error.filename or given}: may not be read by this user.", hint="Whose tree is it?") from error
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise Missing(f"{given}: no such folder.", hint="Give the top of a kernel source tree.") from error
    if reading is None:
        raise BadInput(
            f"expected the top of a kernel source tree, found no {FOLDER}/{COMMON}",
            path=given,
            hint="Give the folder that holds `drivers` and `include`.",
        )
    return SourceTree(given, top, reading, owner)


def inside(top: Path, name: str) -> Path:
    """The path of a file of the tree; raises `BadInput` if a link on the way leads out of the tree."""
    path = top / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(top):
        raise BadInput(f"it is a link that leads out of the tree, to {real}", path=str(path))
    return path
