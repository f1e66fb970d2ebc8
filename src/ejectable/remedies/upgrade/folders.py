# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the upgrade keeps what it fetches: private folders, apart from those of the system."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ejectable.errors import Missing
from ejectable.remedies.ownership import other_writer
from ejectable.remedies.workspace import checked_base

__all__ = ["cache", "private"]

PREFIX = "ejectable-packages-"
LOCK = ".in-use"
SYSTEM = Path("/var/cache")


def cache(name: str) -> Path:
    """A folder of this user's that stays: lists that were refreshed. Raises `Missing` where none can be made.

    Root's is below /var/cache, whatever the environment says: a configuration of apt in it may name programs.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        users = Path(base) if base.startswith("/") else Path.home() / ".cache"
        folder = (SYSTEM if os.geteuid() == 0 else users) / "ejectable" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.lstat()
    except (OSError, RuntimeError) as error:
        raise Missing(f"No cache directory can be made: {error}.", hint="Set XDG_CACHE_HOME to one.") from error
    if os.geteuid() == 0 and (said := other_writer(folder)):
        raise Missing(f"The cache in {folder} is not root's alone: {said}.", hint="Look at it, and remove it.")
    if folder.is_symlink() or about.st_uid != os.geteuid():
        raise Missing(f"{folder} belongs to another user.", hint="Set XDG_CACHE_HOME to a directory of your own.")
    return folder


@contextmanager
def private() -> Iterator[Path]:
    """A folder for one run that only this user can write to, removed at its end.

    Packages are large: it is made in /var/tmp, since /tmp may be in memory (file-hierarchy(7)); TMPDIR overrules that.
    """
    base = None if os.environ.get("TMPDIR") or not os.access("/var/tmp", os.W_OK) else "/var/tmp"  # noqa: S108
    base = checked_base(base)
    _sweep(Path(base))
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        # Held as long as the folder is in use: a run that is killed leaves it free, and the next one cleans up.
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Missing(
            f"No temporary folder can be made: {error.strerror}.", hint="Make room, or set TMPDIR."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # apt downloads as a user of its own, who has to get through to its part of it.
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(base: Path) -> None:
    """Remove what runs of this user left that were killed."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
