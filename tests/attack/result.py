# SPDX-License-Identifier: GPL-2.0-or-later
"""What the runs of `make attack-root` came to: one entry each, and the page that is written of them."""

import collections
from collections.abc import Sequence

import msgspec

__all__ = ["Run", "as_text"]

WATCHED_BY = {
    "hook": "the audit hook and the read-only mount",
    "strace": "the same, and strace",
    "terminal": "the same as the first, on a terminal",
    "writer": "the same as the first, with a writer in the tree meanwhile",
    "caches": "the same as the first, with the user's caches a link into the tree",
}


class Run(msgspec.Struct, frozen=True):
    """One command on one tree. `command` has TREE for the path of the tree."""

    tree: int
    user: str
    how: str
    command: str
    code: int
    seconds: float
    memory: int
    processes: tuple[str, ...]
    faults: tuple[str, ...]


def as_text(runs: Sequence[Run], commit: str) -> str:
    """The page, in Markdown."""
    bad = [run for run in runs if run.faults]
    trees = len({run.tree for run in runs})
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
        "<!-- Written by `python -m tests.attack.root --write`; see docs/security.md. -->",
        "# Hostile trees: what every command did",
        "",
        f"{len(runs)} runs on {trees} trees, the last of them at {commit}. {len(bad)} with a fault. Seconds are",
        "those of a machine that does nothing else: computed, or waited divided by how many waited for a processor.",
        "",
        "| command | runs | exit codes | slowest | most memory | faults |",
        "|---|---|---|---|---|---|",
    ]
    kinds: dict[str, list[Run]] = collections.defaultdict(list)
    for run in runs:
        kinds[_kind(run.command)].append(run)
    lines += [f"| `{kind}` | {_row(kinds[kind])} |" for kind in sorted(kinds)]
    lines += ["", "| by whom, and how it was watched | runs | exit codes | slowest | most memory | faults |"]
    lines += ["|---|---|---|---|---|---|"]
    for user in sorted({run.user for run in runs}, reverse=True):
        for how, said in WATCHED_BY.items():
            if of_these := [run for run in runs if run.user == user and run.how == how]:
                lines.append(f"| {user}: {said} | {_row(of_these)} |")
    started = collections.Counter(name for run in runs for name in run.processes)
    programs = ", ".join(f"{name} ({count})" for name, count in sorted(started.items())) or "none"
    lines += ["", f"Programs that were started: {programs}.", ""]
    lines += [f"- {run.tree} {run.user} {run.how} `{run.command}`: {'; '.join(run.faults)}" for run in bad]
    return "\n".join(lines).rstrip() + "\n"


def _kind(command: str) -> str:
    """The command without the names that a tree's files happen to have."""
    words = ["TREE/boot/vmlinuz..." if word.startswith("TREE/") else word for word in command.split(" ")]
    return " ".join(words)


def _row(runs: Sequence[Run]) -> str:
    codes = ", ".join(
        f"{code}: {count}" for code, count in sorted(collections.Counter(run.code for run in runs).items())
    )
    slowest, most = max(run.seconds for run in runs), max(run.memory for run in runs)
    return f"{len(runs)} | {codes} | {slowest:.1f} s | {most >> 20} MiB | {sum(1 for run in runs if run.faults)}"
