# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the records of changes are: on the machine that this runs on, in a folder that is in nobody else's hands.

Records say what `--undo` does, so whoever writes one decides what root does. What stands below the root of an image or
a captured tree was written by whoever made it, and a HOME may be somebody else's: neither is ever read as ours.
"""

import hashlib
import os
import stat
from pathlib import Path

from ejectable import host
from ejectable.errors import DamagedInput, Missing
from ejectable.intake import Directory
from ejectable.remedies.ownership import other_writer

__all__ = ["checked", "folder_of", "make"]

SYSTEM = Path("/var/lib/ejectable")


def folder_of(root: host.Root) -> Path:
    """The folder for the records about `root`, which may not exist yet.

    For root it is below /var/lib/ejectable, whatever the environment says; for users below $XDG_STATE_HOME (XDG Base
    Directory 0.8). A tree has a folder of its own in it, named by the path that leads to the tree.
    """
    base = SYSTEM if os.geteuid() == 0 else _of_this_user()
    if root.live:
        return base
    return base / "trees" / hashlib.sha256(os.fsencode(root.path.resolve())).hexdigest()[:32]


def checked(folder: Path) -> Path:
    """The folder, if nobody but this user (and root) may write to it; one that does not exist yet is as good.

    Raises `DamagedInput` for a link or a file in its place, and `Missing` for a folder of somebody else.
    """
    for path in (folder, folder / "changes"):
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Missing(f"{path} may not be looked at: {error.strerror}.", hint="Run it as root.") from error
        if not stat.S_ISDIR(about.st_mode):
            raise DamagedInput("expected a directory, found a link or a file", path=str(path))
        foreign = about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        said = f"{path} may be written by others than this user" if foreign else None
        if os.geteuid() == 0 and said is None:
            said = other_writer(path)
        if said:
            raise Missing(
                f"What was changed is recorded in {folder}, and {said}: nothing in it is obeyed.",
                hint="Look at it; then move it out of the way, or give it to root alone (chown, chmod 0755).",
            )
    return folder


def make(folder: Path, *, mode: int = 0o755) -> None:
    """Make a folder and those above it, writable by nobody else whatever the umask is. Raises `OSError`."""
    with Directory.make(folder.parent, mode=0o755) as above:
        above.enter(folder.name, make=True, mode=mode).close()


def _of_this_user() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "ejectable"
