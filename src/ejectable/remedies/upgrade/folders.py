# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the upgrade keeps what it fetches: private folders, apart from those of the system."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ejectable.errors import Missing
from ejectable.intake import Directory, open_cache
from ejectable.remedies.ownership import other_writer
from ejectable.remedies.workspace import workspace

__all__ = ["cache", "private"]

SYSTEM = Path("/var/cache")


def cache(name: str) -> Path:
    """A folder of this user's that stays: lists that were refreshed. Raises `Missing` where none can be made.

    Root's is below /var/cache, whatever the environment says: a configuration of apt in it may name programs.
    """
    root = os.geteuid() == 0
    try:
        if root:
            Directory.make(SYSTEM).close()
        with Directory.ours(SYSTEM, "ejectable", name, make=True) if root else open_cache(name, make=True) as folder:
            path = Path(folder.name)
    except (OSError, RuntimeError) as error:
        raise Missing(f"No cache directory can be made: {error}.", hint="Set XDG_CACHE_HOME to one.") from error
    if root and (said := other_writer(path)):
        raise Missing(f"The cache in {path} is not root's alone: {said}.", hint="Look at it, and remove it.")
    return path


@contextmanager
def private() -> Iterator[Path]:
    """A folder for one run that only this user can write to, removed at its end; packages are large."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(workspace("packages", large=True))
            # apt downloads as a user of its own, who has to get through to its part of it.
            os.fchmod(folder.descriptor, 0o711)
        except OSError as error:
            raise Missing(
                f"No temporary folder can be made: {error.strerror}.", hint="Make room, or set TMPDIR."
            ) from error
        yield Path(folder.name)
