# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder that the transcripts of runs are kept in: one that was asked for, or one of the lab's own.

The lab's own are made beside other temporary files and removed by the lab itself once they are a week old.
"""

import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from ejectable.errors import EjectableError, Missing
from ejectable.intake.directory import Directory

__all__ = ["KEPT_S", "Evidence", "remove_old"]

OWN = re.compile(r"ejectable-lab-[0-9a-f]{12}")
KEPT_S = 7 * 86400.0


class Evidence:
    """A folder for transcripts. It is made when there is something to keep."""

    def __init__(self, folder: Path, *, own: bool = False) -> None:
        self.folder = folder
        self._own = own

    @classmethod
    def named(cls, wanted: str) -> Self:
        """The folder that somebody asked for. Raises `Missing` where there can be none."""
        try:
            Directory.make(wanted, mode=0o755).close()
        except OSError as error:
            raise Missing(
                f"{wanted}: no folder can be made there: {error.strerror}.", hint="Choose another with --evidence."
            ) from error
        return cls(Path(wanted).absolute())

    @classmethod
    def temporary(cls) -> Self:
        """A new one of the lab's own; those that are older than a week go."""
        place = Path(tempfile.gettempdir())
        remove_old(place)
        return cls(place / f"ejectable-lab-{secrets.token_hex(6)}", own=True)

    def keep(self, name: str, files: Mapping[str, bytes]) -> dict[str, str]:
        """Write files into a new folder `name`; their paths. Raises `OSError`, and then leaves none of them."""
        with Directory.open(self.folder.parent) as above, above.enter(self.folder.name, make=True, mode=0o700) as top:
            inner = top.enter(name, make=True)
            try:
                for file, content in files.items():
                    inner.write(file, content, lasting=False)
            except BaseException:
                for file in files:
                    inner.remove(file)
                with suppress(OSError):
                    top.remove_folder(name)
                raise
            finally:
                inner.close()
        return {file: str(self.folder / name / file) for file in files}

    def discard(self) -> None:
        """Remove the folder if it is the lab's own: what was asked for by name stays."""
        if self._own:
            with suppress(OSError), Directory.open(self.folder.parent) as above:
                above.remove_folder(self.folder.name, filled=True)


def remove_old(place: Path, *, older_than_s: float = KEPT_S) -> int:
    """Remove the lab's own folders of this user that nothing was written to for so long; how many went."""
    gone = 0
    with suppress(OSError, EjectableError), Directory.open(place) as above:
        for name in above.list():
            about = above.lstat(name) if OWN.fullmatch(name) else None
            if about is None or not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
                continue
            if time.time() - about.st_mtime >= older_than_s:
                with suppress(OSError):
                    above.remove_folder(name, filled=True)
                    gone += 1
    return gone
