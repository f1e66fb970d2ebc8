# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the upgrade keeps what it fetches: private folders, apart from those of the system."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ejectable.errors import Missing
from ejectable.intake import open_cache, private_folder

__all__ = ["cache", "private"]


def cache(name: str) -> Path:
    """A folder of this user's that stays: lists that were refreshed. Raises `Missing` where none can be made."""
    try:
        with open_cache(name, make=True) as folder:
            return Path(folder.name)
    except (OSError, RuntimeError) as error:
        raise Missing(f"No cache directory can be made: {error}.", hint="Set XDG_CACHE_HOME to one.") from error


@contextmanager
def private() -> Iterator[Path]:
    """A folder for one run that only this user can write to, removed at its end; packages are large."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder("packages", large=True))
            # apt downloads as a user of its own, who has to get through to its part of it.
            os.fchmod(folder.descriptor, 0o711)
        except OSError as error:
            raise Missing(
                f"No temporary folder can be made: {error.strerror}.", hint="Make room, or set TMPDIR."
            ) from error
        yield Path(folder.name)
