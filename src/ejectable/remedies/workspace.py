# SPDX-License-Identifier: GPL-2.0-or-later
"""Temporary folders to build and unpack in: as root, never where somebody else may put another one in their place."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ejectable.errors import Missing
from ejectable.remedies.ownership import other_writer

__all__ = ["checked_base", "workspace"]


def checked_base(base: str | None = None) -> str:
    """The folder for temporary folders (`base`, else what TMPDIR says); raises `Missing` where others rule it.

    The sticky bit, as /tmp has it, is enough: others may add to the folder, and may not rename what is root's in it.
    """
    folder = base or tempfile.gettempdir()
    if os.geteuid() == 0 and (said := other_writer(folder, shared=True)):
        raise Missing(
            f"Nothing is built or unpacked in {folder}: {said}.", hint="Unset TMPDIR, or set it to a folder of root's."
        )
    return folder


@contextmanager
def workspace(prefix: str) -> Iterator[Path]:
    """A temporary folder that only this user can write to, removed at the end. Raises `Missing` as `checked_base`."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=checked_base()) as folder:
        yield Path(folder)
