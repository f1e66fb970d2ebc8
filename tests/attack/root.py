# SPDX-License-Identifier: GPL-2.0-or-later
"""`make attack-root`: hostile trees, every command, as root and as nobody, with a writer beside it.

    python -m tests.attack.root --trees 200                                     # all at once
    python -m tests.attack.root --trees 50 --first 150 --log runs.jsonl         # a part; runs.jsonl grows
    python -m tests.attack.root --trees 0 --log runs.jsonl --write docs/attack-root.md

Nothing may be written outside, no process started but the allowed ones, nothing take more than 30 s or 1 GiB, no
control character reach the terminal, no exit code be outside the contract; and without --apply and --undo, nothing
change in the tree. Of every eight trees one is looked at through strace, one on a terminal, two have a writer beside
them, and one has the user's caches lead into the tree.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import msgspec

from tests.attack.confined import How, Watched, watched
from tests.attack.hostile import PLACES, build
from tests.attack.result import Run, as_text

__all__ = ["ALLOWED", "attacked", "commands", "race"]

# What a tree makes the tool start: the readers of packages' versions and of the boot loader, nothing of the tree's.
ALLOWED = frozenset(
    ["dpkg", "dpkg-query", "apt-get", "apt-cache", "rpm", "dnf", "zypper", "systemd-detect-virt", "uname"]
)


def commands(tree: Path) -> list[list[str]]:
    """Every command that can be pointed at a tree."""
    top = str(tree)
    # A link that is named on the command line is followed, wherever it leads: that is the user's word, not the tree's.
    images = [str(path) for path in sorted((tree / "boot").glob("vmlinuz*")) if not path.is_symlink()]
    kernel = images[0] if images else top
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


Links = tuple[tuple[str, str], ...]


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


def attacked(seed: int, users: Sequence[str | None]) -> Iterator[Run]:
    """Build the tree of this number for each user, and run every command on it."""
    how: How = {2: "strace", 5: "terminal"}.get(seed % 8, "hook")  # type: ignore[assignment]
    meddled, cached = seed % 4 == 3, seed % 8 == 1
    for user in users:
        with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as name:
            Path(name).chmod(0o755)
            tree = build(Path(name) / "tree", seed)
            before: Links = (("ejectable", str(tree / "var/log")),) if cached else ()
            for arguments in commands(tree):
                kept = _listing(tree)
                with race(tree) if meddled else nullcontext():
                    one = _watched(arguments, tree, user, how, before)
                faults = list(one.faults)
                if not meddled and not {"--apply", "--undo"} & set(arguments) and _listing(tree) != kept:
                    faults.append("it changed the tree")
                yield Run(
                    seed,
                    user or "root",
                    "writer" if meddled else "caches" if cached else how,
                    " ".join(arguments).replace(str(tree), "TREE"),
                    one.code,
                    one.seconds,
                    one.memory,
                    tuple(Path(what).name for what in one.processes),
                    tuple(faults),
                )


def _watched(words: list[str], tree: Path, user: str | None, how: How, before: Links) -> Watched:
    return watched(words, writable=[tree], allowed=ALLOWED, user=user, how=how, before=before)


def _listing(tree: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for folder, folders, files in os.walk(os.fsencode(tree)):
        for name in (*folders, *files):
            with suppress(OSError):
                about = os.lstat(folder + b"/" + name)
                found.append((folder, name, about.st_mode, about.st_uid, about.st_size, about.st_mtime_ns))
    return sorted(found, key=repr)


def main() -> int:
    """Run it; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--log", type=Path, help="runs are added to this file, one JSON document a line")
    parser.add_argument("--write", type=Path, help="where to write the table of all the runs")
    options = parser.parse_args()
    users = (None, "nobody") if os.geteuid() == 0 else (None,)
    seeds = range(options.first, options.first + options.trees)
    runs: list[Run] = []
    if options.log and options.log.exists():
        runs += [msgspec.json.decode(line, type=Run) for line in options.log.read_bytes().splitlines()]
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(lambda seed: list(attacked(seed, users)), seed) for seed in seeds]):
            found = done.result()
            runs += found
            for one in found:
                if one.faults:
                    sys.stdout.write(f"{one.tree} {one.user} {one.how} {one.command!r}: {'; '.join(one.faults)!r}\n")
                    sys.stdout.flush()
                if options.log:
                    with options.log.open("ab") as log:
                        log.write(msgspec.json.encode(one) + b"\n")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    text = as_text(runs, commit.stdout.strip())
    sys.stdout.write(text)
    if options.write:
        options.write.write_text(text)
    return 1 if any(one.faults for one in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
