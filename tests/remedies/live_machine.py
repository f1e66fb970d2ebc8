# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine to repair: the tree of a real guest, and programs that change it as the real ones changed the guest.

What insmod and rmmod do to a kernel was captured from one (tests/remedies/live_guest.py): here they put the one state
of its memory in the place of the other.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from corpus.trees import headers
from ejectable import host
from ejectable.advisories import choose
from ejectable.model import Applied
from ejectable.remedies import Request, Situation
from ejectable.remedies.changes import Changes
from ejectable.remedies.live import Live
from tests.host.trees import RELEASE
from tests.remedies.live_guest import captured, copy_of
from tests.remedies.own_state import IN_A_CHILD

__all__ = ["MARK", "apply", "change_headers", "machine", "programs", "run_aside", "said", "situation", "undo"]

MARK = "var/lib/ejectable/live-loaded"
# What becomes of the kernel: `state TREE FROM` takes memory, symbols and modules from another capture of it.
STATE = """
state() {
    for f in proc/kcore proc/kallsyms proc/modules; do ln -f "$1/$f" "$TREE/$f"; done
    rm -rf "$TREE/sys/module/ejectable_live"
    [ -d "$1/sys/module/ejectable_live" ] && cp -a "$1/sys/module/ejectable_live" "$TREE/sys/module/"
    return 0
}
echo "$(basename "$0") $*" >>"$TREE/../log"
"""
INSMOD = """
cp "$1" "$TREE/../loaded.ko"
case "$MISHAP" in
reject) echo "insmod: ERROR: could not insert module $1: Key was rejected by service" >&2; exit 1 ;;
useless)
    mkdir "$TREE/sys/module/ejectable_live"
    echo "ejectable_live 16384 0 - Live 0x0" >>"$TREE/proc/modules"
    exit
    ;;
esac
state "$REPAIRED"
if [ "$MISHAP" = kill ]; then kill -9 $PPID; fi
"""
RMMOD = """
[ "$MISHAP" = stuck ] && { echo "rmmod: ERROR: Module ejectable_live is in use" >&2; exit 1; }
[ -e "$TREE/sys/module/ejectable_live" ] || { echo "rmmod: ERROR: it is not currently loaded" >&2; exit 1; }
state "$BARE"
"""
DKMS = """
place="$TREE/var/lib/dkms/$2"
case $1 in
add) mkdir -p "$place" ;;
install) [ "$MISHAP" = dkms ] && { echo "Error! Bad return status for module build on kernel: $4" >&2; exit 10; } ;;
remove) rm -rf "$place" ;;
esac
exit 0
"""


def machine(folder: Path, state: str = "bare", *, own_memory: bool = False) -> Path:
    """The tree, with an os-release and the headers that modules are built with."""
    tree = copy_of(state, folder / "tree", own_memory=own_memory)
    (tree / "etc").mkdir()
    (tree / "etc/os-release").write_text("ID=debian\nVERSION_ID=12\n")
    build = tree / "lib/modules" / RELEASE / "build"
    build.parent.mkdir(parents=True)
    build.mkdir()
    for inside in headers(RELEASE).iterdir():
        (build / inside.name).symlink_to(inside.resolve())
    for name in ("Makefile", ".kernelvariables"):  # what is asked for below the root
        _own(build / name)
    return tree


def change_headers(tree: Path, path: str, change: Callable[[str], str]) -> None:
    """Edit one file of the headers, which are otherwise links into the cache."""
    place = tree / "lib/modules" / RELEASE / "build"
    for part in path.split("/"):
        place /= part
        _own(place)
    place.write_text(change(place.read_text()))


def _own(place: Path) -> None:
    """In the place of a link: a copy of the file, or a folder of links to what is in it."""
    if not place.is_symlink():
        return
    target = place.readlink()
    place.unlink()
    if target.is_dir():
        place.mkdir()
        for inside in target.iterdir():
            (place / inside.name).symlink_to(inside)
    else:
        shutil.copy(target, place)


def programs(folder: Path, tree: Path, mishap: str = "") -> dict[str, str]:
    """The environment in which insmod, rmmod, dkms and systemctl work on the tree."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    # Nothing of our environment reaches a program: what it has to know stands in it.
    values = {"TREE": tree, "BARE": captured("bare"), "REPAIRED": captured("repaired"), "MISHAP": mishap}
    known = "".join(f"{name}='{value}'\n" for name, value in values.items())
    for name, text in (("insmod", INSMOD), ("rmmod", RMMOD), ("dkms", DKMS), ("systemctl", "exit 0\n")):
        (place / name).write_text(f"#!/bin/sh\n{known}{STATE}{text}")
        (place / name).chmod(0o755)
    return {"PATH": f"{place}:{os.environ['PATH']}"}


def situation(tree: Path) -> Situation:
    """The machine, looked at."""
    root = host.Root(tree)
    root.live = True  # as if it were this machine: the programs work on the tree
    return Situation(root, choose(()), cache=False)


def apply(tree: Path, *, persist: bool = False) -> Applied:
    """`ejectable fix live --apply`, on the tree."""
    looked = situation(tree)
    with Changes.begin(looked.root, "live", undo="ejectable fix live --undo") as changes:
        return Live().apply(looked, Request(persist=persist), changes)


def undo(tree: Path) -> Applied:
    """`ejectable fix live --undo`, on the tree."""
    looked = situation(tree)
    with Changes.begin(looked.root, "live", undo="none") as changes:
        return Live().undo(looked, Request(), changes)


def said(folder: Path) -> list[str]:
    """The programs that were called, and with what."""
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def run_aside(tree: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`apply` in a process of its own, which may be killed."""
    code = (
        IN_A_CHILD
        + f"from pathlib import Path; from tests.remedies.live_machine import apply; apply(Path({str(tree)!r}))"
    )

    root = Path(__file__).resolve().parent.parent.parent
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, **environment, "PYTHONPATH": f"{root}:{root / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
