# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else may write to a path: what root obeys, runs or compiles must be in nobody else's hands."""

import os
import stat
from pathlib import Path

__all__ = ["other_writer", "tree_writer"]

MOST_ENTRIES = 400_000  # the headers of a kernel are some 25,000


def other_writer(path: str | os.PathLike[str], *, shared: bool = False) -> str | None:
    """Who but root may replace what is at `path`, as a sentence that names the part; `None` where nobody may.

    Links are followed, and every folder on the way counts. In a folder with the sticky bit (/tmp) others may not
    rename what is root's (unlink(2), EPERM), so it is no way in; as the last part it is, for they may add files to it,
    unless that is all right (`shared`).
    """
    try:
        real = Path(path).resolve(strict=True)
        for part in [*reversed(real.parents), real]:
            about = part.lstat()
            if (said := _writer(part, about)) and not ((shared or part != real) and _sticky(about)):
                return said
    except (OSError, RuntimeError) as error:
        return f"{path} cannot be looked at ({error})"
    return None


def tree_writer(top: str | os.PathLike[str]) -> str | None:
    """As `other_writer`, for a folder and everything in it; links in it are followed to where they lead."""
    if said := other_writer(top):
        return said
    seen = 0
    pending = [Path(top).resolve()]
    visited: set[Path] = set()
    try:
        while pending:
            folder = pending.pop()
            if folder in visited:
                continue
            visited.add(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MOST_ENTRIES:
                        return f"{top} holds more than {MOST_ENTRIES} files"
                    path = Path(entry.path)
                    if entry.is_symlink():
                        if not path.exists():  # leads nowhere: nothing is read through it
                            continue
                        path = path.resolve()
                        if said := other_writer(path):
                            return said
                    elif said := _writer(path, entry.stat(follow_symlinks=False)):
                        return said
                    if path.is_dir():
                        pending.append(path)
    except (OSError, RuntimeError) as error:
        return f"{top} cannot be looked at ({error})"
    return None


def _writer(path: Path, about: os.stat_result) -> str | None:
    if about.st_uid != 0:
        return f"{path} belongs to user {about.st_uid}"
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} may be written by others than root (mode {stat.S_IMODE(about.st_mode):04o})"
    return None


def _sticky(about: os.stat_result) -> bool:
    return bool(about.st_mode & stat.S_ISVTX) and about.st_uid == 0
