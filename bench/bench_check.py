# SPDX-License-Identifier: GPL-2.0-or-later
"""`check` with a warm cache, on this machine and on one with a kernel on its disk; and how fast the program starts."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.run import PYTHON, TOOL, Command, Group, Limit
from corpus.archive import cache_folder, locked

__all__ = ["BENCHMARKS"]

VERDICTS = (0, 2, 3)
# In a process of its own: what this one reads would count as the memory of those that it starts (exec(2) keeps the
# peak).
BUILD = """
import os, shutil, sys
from pathlib import Path
from tests.host.trees import Machine, affected_module
kept = Path(sys.argv[1])
aside = kept.with_suffix(f".{os.getpid()}")
shutil.rmtree(aside, ignore_errors=True)
Machine(module=affected_module()).build(aside).rename(kept)
"""


@cache
def tree() -> Path:
    """An affected machine: Debian's kernel in /boot, a module with the faulty callback, a legacy disk, a modern NIC."""
    kept = cache_folder() / "bench" / "affected-machine"
    with locked("bench-affected-machine"):
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            subprocess.run([PYTHON, "-c", BUILD, str(kept)], check=True, cwd=Path(__file__).parent.parent)
    return kept


def _check() -> Sequence[Command]:
    # The cache is the user's own place by default; a bench leaves that alone. The warming round fills this one.
    own = {"XDG_CACHE_HOME": str(cache_folder() / "bench" / "cache"), "EJECTABLE_CORPUS": str(cache_folder())}
    there = ("check", "--root", str(tree()))
    return (
        Command("Python that does nothing", (PYTHON, "-c", "pass")),
        Command("check this machine", (TOOL, "check"), VERDICTS, own),
        Command("check a machine with a kernel", (TOOL, *there), (2,), own),
        Command("the same without a cache", (TOOL, *there, "--no-cache"), (2,), own),
    )


def _start() -> Sequence[Command]:
    return (
        Command("Python that does nothing", (PYTHON, "-c", "pass")),
        Command("ejectable --version", (TOOL, "--version")),
        Command("ejectable --help", (TOOL, "--help")),
    )


BENCHMARKS = (
    Group(
        "check: with a warm cache",
        _check,
        (
            Limit("check this machine", seconds=0.4),
            Limit("check a machine with a kernel", seconds=0.4),
            Limit("check a machine with a kernel", times_faster=2, than="the same without a cache"),
        ),
    ),
    Group(
        "start",
        _start,
        (Limit("ejectable --version", seconds=0.15), Limit("ejectable --help", seconds=0.3)),
    ),
)
