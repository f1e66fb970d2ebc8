# SPDX-License-Identifier: GPL-2.0-or-later
"""`make attack-root`: hostile trees, every command, as root and as nobody, with a writer beside it.

    python -m tests.attack.root --trees 200

Nothing may be written outside, no process started but the allowed ones, nothing take more than 30 s or 1 GiB, no
control character reach the terminal, no exit code be outside the contract.
"""

import argparse
import collections
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tests.attack.confined import Watched, watched
from tests.attack.hostile import PLACES, build

__all__ = ["ALLOWED", "commands", "race"]

# What a tree makes the tool start: the readers of packages' versions and of the boot loader, nothing of the tree's.
ALLOWED = frozenset(
    ["dpkg", "dpkg-query", "apt-get", "apt-cache", "rpm", "dnf", "zypper", "systemd-detect-virt", "uname"]
)


def commands(tree: Path) -> list[list[str]]:
    """Every command that can be pointed at a tree."""
    top = str(tree)
    kernel = next((str(path) for path in (tree / "boot").glob("vmlinuz*")), top) if (tree / "boot").is_dir() else top
    return [
        ["check", "--root", top],
        ["check", "--root", top, "--format", "json", "--verbose"],
        ["kernel", top],
        ["kernel", kernel],
        ["crash", top],
        ["fix", "--root", top, "--offline"],
        ["fix", "panic-policy", "--root", top, "--apply"],
        ["fix", "panic-policy", "--root", top, "--undo"],
        ["fix", "upgrade", "--root", top, "--undo"],
        ["fix", "live", "--root", top, "--apply"],
        ["fix", "source-patch", top],
        ["lab", kernel],
    ]


@contextmanager
def race(tree: Path) -> Iterator[None]:
    """Somebody who renames, replaces and removes below the tree while it is looked at."""
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            for name in PLACES:
                place = Path(name)
                with suppress(OSError):
                    (tree / place).rename(tree / place.with_name("meddled"))
                with suppress(OSError):
                    (tree / place).symlink_to("/etc")
                with suppress(OSError):
                    (tree / place).unlink()
                if stop.wait(0.001):
                    return

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _one(seed: int, users: Sequence[str | None]) -> list[Watched]:
    found = []
    for user in users:
        with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            tree = build(Path(name) / "tree", seed)
            meddled = seed % 4 == 3
            for arguments in commands(tree):
                with race(tree) if meddled else nullcontext():
                    found.append(watched(arguments, writable=[tree], allowed=ALLOWED, user=user))
    return found


def main() -> int:
    """Run it; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    users = (None, "nobody") if os.geteuid() == 0 else (None,)
    seeds = range(options.first, options.first + options.trees)
    with ThreadPoolExecutor(options.jobs) as pool:
        found = [one for many in pool.map(lambda seed: _one(seed, users), seeds) for one in many]
    bad = [one for one in found if one.faults]
    for one in bad:
        sys.stdout.write(f"{' '.join(one.arguments)!r}: {'; '.join(one.faults)!r}\n")
    codes = collections.Counter(one.code for one in found)
    started = collections.Counter(Path(what).name for one in found for what in one.processes)
    sys.stdout.write(
        f"{options.trees} trees, {len(found)} commands; exit codes {dict(sorted(codes.items()))}; processes "
        f"{dict(started)}; at most {max(one.seconds for one in found):.1f} s and "
        f"{max(one.memory for one in found) >> 20} MiB; {len(bad)} with a fault\n"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
