# SPDX-License-Identifier: GPL-2.0-or-later
"""This user's own folders: the cache that stays, and private ones for one run."""

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ejectable.intake.directory import Directory

__all__ = ["cache_folder", "open_cache", "private_folder"]

LOCK = ".in-use"


def cache_folder() -> Path:
    """Where this user's caches are kept, the part below it being ours: $XDG_CACHE_HOME or ~/.cache.

    XDG Base Directory Specification 0.8; a relative value is to be ignored. Raises `RuntimeError` without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base) if base.startswith("/") else Path.home() / ".cache"


def open_cache(*below: str, make: bool = False) -> Directory:
    """Open our folder in the user's cache, or one below it. `make` makes what is missing.

    Raises `OSError` where there is none, `RuntimeError` without a home, `Denied` where it is somebody else's.
    """
    base = cache_folder()
    if make:
        Directory.make(base).close()
    return Directory.ours(base, "ejectable", *below, make=make)


@contextmanager
def private_folder(what: str, *, large: bool = False) -> Iterator[Directory]:
    """A folder for one run that only this user can write in, removed at its end; its `name` is its path.

    A run that is killed leaves it behind, unlocked, and the next one that wants a folder for the same (`what`, one
    word) removes it. What is `large` goes to /var/tmp, since /tmp may be in memory (file-hierarchy(7)); TMPDIR
    overrules that. Raises `OSError`.
    """
    roomy = large and not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK)  # noqa: S108
    with Directory.open("/var/tmp" if roomy else tempfile.gettempdir()) as base:  # noqa: S108
        _sweep(base, re.compile(rf"ejectable-{what}-[0-9a-f]{{16}}"))
        name = f"ejectable-{what}-{secrets.token_hex(8)}"
        aside = f".{name}"  # until it is locked: another run that sweeps must not take it for one that was left
        with base.enter(aside, make=True, mode=0o700) as folder, folder.lock(LOCK):
            base.rename(aside, name)
            folder.name = f"{base.name.rstrip('/')}/{name}"
            try:
                yield folder
            finally:
                with suppress(OSError):
                    base.remove_folder(name, filled=True)


def _sweep(base: Directory, pattern: re.Pattern[str]) -> None:
    """Remove what runs of this user left that were killed."""
    for name in filter(pattern.fullmatch, base.list()):
        with suppress(OSError), base.enter(name) as folder:
            if os.fstat(folder.descriptor).st_uid != os.geteuid() or folder.lstat(LOCK) is None:
                continue
            with folder.lock(LOCK):
                base.remove_folder(name, filled=True)
