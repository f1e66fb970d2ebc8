# SPDX-License-Identifier: GPL-2.0-or-later
"""Advisories that are not this package's: of installed packages, and of folders that are named on the command line.

An installed package declares `[project.entry-points."ejectable.advisories"]` with a line `NAME = "module:OBJECT"`; the
object is an `Advisory`. A folder (`--advisories DIR`) is one advisory, an `__init__.py` with its `ADVISORY` and a
`facts.toml`, or holds several such folders. It is code that runs as whoever runs this, root mostly: so it and all in
it, and the way to it, must be root's or this user's own and not writable by others.
"""

import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from ejectable.advisories.advisory import Advisory
from ejectable.errors import BadInput, Missing, WrongUsage

__all__ = ["from_folder", "installed"]

GROUP = "ejectable.advisories"
PREFIX = "ejectable_advisories_of_folder_"
MOST_FILES = 4096
OTHERS_WRITE = 0o022


def installed() -> Iterator[Advisory]:
    """The advisories of installed packages. Raises `BadInput` that names the package whose one cannot be had."""
    if not any(map(_declares_some, sys.path)):
        return
    from importlib import metadata

    for point in metadata.entry_points(group=GROUP):
        package = point.dist.name if point.dist is not None else point.value
        hint = f"Repair or remove the package {package}."
        try:
            found = point.load()
            _read(found)
        except Exception as error:
            raise BadInput(f"The advisory {point.name} of {package} cannot be loaded: {error!r}", hint=hint) from error
        if not isinstance(found, Advisory):
            raise BadInput(f"The advisory {point.name} of {package} is no Advisory.", hint=hint)
        yield found


def _declares_some(place: str) -> bool:
    """Whether a package in one place of `sys.path` may declare advisories; `importlib.metadata` is slow to load."""
    try:
        for package in os.scandir(place or "."):
            if package.name.endswith((".dist-info", ".egg-info")):
                declared = Path(package.path, "entry_points.txt")
                if declared.is_file() and GROUP.encode() in declared.read_bytes():
                    return True
    except NotADirectoryError:  # an archive
        return True
    except OSError:
        return False
    return False


def from_folder(folder: str) -> Iterator[Advisory]:
    """The advisories of a folder. Raises `BadInput` where there is none, one is faulty, or others could change it;
    `Missing` where the folder is not there.
    """
    if not folder:  # realpath("") is the current folder, whose code nobody asked for
        raise WrongUsage("An empty path names no folder of advisories.", hint="Is a variable not set?")
    top = Path(os.path.realpath(folder))
    if not top.exists():
        raise Missing(f"{folder}: no such folder.", hint="--advisories takes the folder of an advisory.")
    _trusted(top)
    if (top / "__init__.py").is_file():
        yield _load(top)
        return
    parts = sorted(part for part in top.iterdir() if (part / "__init__.py").is_file())
    if not parts:
        raise BadInput(
            "It holds no advisory.", path=folder, hint="An advisory is a folder with __init__.py and facts.toml."
        )
    for part in parts:
        yield _load(part)


def _load(folder: Path) -> Advisory:
    name = PREFIX + folder.name.replace("-", "_").replace(".", "_")
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise BadInput("It cannot be imported.", path=str(folder))
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, "ADVISORY", None)
        _read(found)
    except Exception as error:
        del sys.modules[name]
        raise BadInput(f"the advisory cannot be loaded: {error!r}", path=str(folder)) from error
    finally:
        sys.dont_write_bytecode = writes
    if not isinstance(found, Advisory):
        raise BadInput("its __init__.py has no ADVISORY that is an Advisory", path=str(folder))
    return found


def _read(found: object) -> None:
    """Read its facts now: a process that reads foreign bytes cannot, as it can those of this package."""
    if isinstance(found, Advisory):
        _ = found.facts, found.signature


def _trusted(top: Path) -> None:
    """Raise `BadInput` unless only root and this user can change what is in the folder, or put another in its place."""
    for above in top.parents:
        about = above.stat()
        # In a sticky folder (/tmp) nobody but its owner can rename ours away.
        loose = about.st_mode & OTHERS_WRITE and not about.st_mode & stat.S_ISVTX
        _ours(above, about, loose=bool(loose))
    if not top.is_dir():
        raise BadInput("It is no folder.", path=str(top), hint="--advisories takes the folder of an advisory.")
    count = 0
    for place, folders, files in os.walk(top):
        for entry in (Path(place), *(Path(place, name) for name in (*folders, *files))):
            about = entry.lstat()
            if stat.S_ISLNK(about.st_mode):
                raise BadInput("an advisory holds no links: what one leads to may change", path=str(entry))
            _ours(entry, about, loose=bool(about.st_mode & OTHERS_WRITE))
            count += 1
        if count > MOST_FILES:
            raise BadInput(f"there are more than {MOST_FILES} files in it", path=str(top))


def _ours(path: Path, about: os.stat_result, *, loose: bool) -> None:
    if about.st_uid not in (0, os.geteuid()) or loose:
        who = "others may write to it" if loose else f"it belongs to user {about.st_uid}"
        raise BadInput(
            f"an advisory is code that runs with your rights, and {who}",
            path=str(path),
            hint="Keep it in a folder of your own or root's that nobody else may write to: chmod -R go-w DIR.",
        )
