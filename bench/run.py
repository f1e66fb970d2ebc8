# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: how fast, measured as a user meets it: whole processes, medians, side by side in the same run.

Every file bench/bench_*.py has a list `BENCHMARKS`. A benchmark names a command, and a limit: so many seconds, so
many times as long or at most 1/n as long as another command of the same run, or so much memory. The commands of one
group take turns, so that a noisy machine disturbs all of them alike.

    make bench                      all
    make bench ARGS="kernel -n 9"   the groups whose name contains "kernel", nine rounds
"""

import argparse
import importlib
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

__all__ = ["PYTHON", "TOOL", "Command", "Failed", "Group", "Limit", "Measured", "main", "measure"]

HERE = Path(__file__).parent
PYTHON = sys.executable
TOOL = str(Path(PYTHON).with_name("ejectable"))
EXIT_OK, EXIT_MISSED = 0, 1
MEBIBYTE = 1 << 20


class Command(msgspec.Struct, frozen=True):
    """A whole process. `expected` lists the exit codes with which it did its work."""

    name: str
    arguments: tuple[str, ...]
    expected: tuple[int, ...] = (0,)
    environment: Mapping[str, str] = {}


class Limit(msgspec.Struct, frozen=True):
    """What is promised of a command: exactly one of the bounds is given."""

    command: str
    seconds: float | None = None
    mebibytes: float | None = None
    ratio: float | None = None  # at most so many times the time of `than`
    times_faster: float | None = None  # than `than`, at least
    than: str | None = None


class Group(msgspec.Struct, frozen=True):
    """Commands that are measured side by side, and what is promised of them. `commands` is called when it runs."""

    name: str
    commands: Callable[[], Sequence[Command]]
    limits: tuple[Limit, ...]


class Measured(msgspec.Struct, frozen=True):
    """The medians of a command: seconds of wall clock, bytes of resident memory at the peak."""

    seconds: float
    memory: float


class Failed(Exception):
    """A command that did not do its work; there is nothing to measure then."""


def _once(command: Command) -> tuple[float, int]:
    """Run once: seconds and peak memory in bytes, of this process alone."""
    # A user's Python keeps the bytecode of what it imported; the round that warms up writes it.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, **command.environment}
    started = time.perf_counter()
    with subprocess.Popen(
        command.arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode not in command.expected:
        text = complaint.decode("utf-8", "replace").strip()[-400:]
        raise Failed(f"`{shlex.join(command.arguments)}` ended with {process.returncode}: {text}")
    return seconds, usage.ru_maxrss * 1024


def measure(commands: Sequence[Command], rounds: int) -> dict[str, Measured]:
    """The medians of each command over so many rounds, after one round that warms the caches."""
    runs: dict[str, list[tuple[float, int]]] = {command.name: [] for command in commands}
    for number in range(rounds + 1):
        for command in commands:
            result = _once(command)
            if number:
                runs[command.name].append(result)
    return {
        name: Measured(statistics.median(run[0] for run in found), statistics.median(run[1] for run in found))
        for name, found in runs.items()
    }


def judge(limit: Limit, measured: Mapping[str, Measured]) -> tuple[str, str, bool]:
    """What was measured, what was promised, and whether it is kept."""
    own = measured[limit.command]
    if limit.seconds is not None:
        return f"{own.seconds:.3f} s", f"<= {limit.seconds:g} s", own.seconds <= limit.seconds
    if limit.mebibytes is not None:
        used = own.memory / MEBIBYTE
        return f"{used:.0f} MiB", f"<= {limit.mebibytes:g} MiB", used <= limit.mebibytes
    assert limit.than is not None
    other = measured[limit.than]
    against = f"{own.seconds:.3f} s, {limit.than} {other.seconds:.3f} s: "
    if limit.ratio is not None:
        ratio = own.seconds / other.seconds
        return f"{against}{ratio:.2f} times", f"<= {limit.ratio:g} times", ratio <= limit.ratio
    assert limit.times_faster is not None
    faster = other.seconds / own.seconds
    kept = faster >= limit.times_faster
    return f"{against}{faster:.1f} times faster", f">= {limit.times_faster:g} times faster", kept


def _groups(wanted: str) -> list[Group]:
    sys.path.insert(0, str(HERE.parent))
    found = []
    for path in sorted(HERE.glob("bench_*.py")):
        module = importlib.import_module(f"bench.{path.stem}")
        found += [group for group in module.BENCHMARKS if wanted in group.name]
    return found


def main() -> int:
    """Measure, print a table, say whether all is kept."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure whole processes against their limits.")
    parser.add_argument("wanted", nargs="?", default="", help="only groups whose name contains this")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    options = parser.parse_args()
    missed = broken = False
    for group in _groups(options.wanted):
        print(group.name, flush=True)
        try:
            measured = measure(group.commands(), max(1, options.rounds))
        except Failed as error:
            print(f"  BROKEN  {error}")
            broken = True
            continue
        for name, result in measured.items():
            print(f"          {name:<34} {result.seconds:8.3f} s {result.memory / MEBIBYTE:8.0f} MiB")
        for limit in group.limits:
            value, bound, kept = judge(limit, measured)
            print(f"  {'ok    ' if kept else 'MISSED'}  {limit.command:<34} {value:<52} {bound}", flush=True)
            missed |= not kept
    if missed or broken:
        return EXIT_MISSED
    return EXIT_OK


if __name__ == "__main__":
    # The benchmarks import this file by its full name: run that one, so that there is just one of each class.
    sys.path.insert(0, str(HERE.parent))
    sys.exit(importlib.import_module("bench.run").main())
