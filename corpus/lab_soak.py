# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab, over and over: a hundred runs in a row, then a hundred cycles of unplugging and plugging in one run.

    make lab-soak                   a quarter of an hour; exit code 2 for a leak or a flake
    make lab-soak ARGS="--runs 10 --cycles 10"

The runs take turns: the stock kernel and the faulty one, idle and under I/O, legacy and modern. Each has one right
result; another one is a flake. After every run the process must be as it was after the first: no child, no thread and
no file more. Memory goes up and down with what the allocator keeps; its lowest value may not rise.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from corpus.archive import fetch
from corpus.modules import faulty_module
from ejectable.assess.proof import Proof
from ejectable.lab.request import Request, perform

__all__ = ["Footprint"]

RELEASE = "6.1.0-50-cloud-amd64"
GROWTH_KIB = 4 << 10  # of the lowest resident memory, from the first half of the runs to the second


class Footprint(msgspec.Struct, frozen=True):
    """What a process holds: what a leak would show in."""

    children: int
    descriptors: int
    threads: int
    temporary: int  # files below its folder for temporary ones
    resident_kib: int

    @classmethod
    def now(cls, temporary: Path) -> "Footprint":
        """Of this process, after what Python would give back by itself."""
        gc.collect()
        status = dict(
            line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
        )
        return cls(
            children=sum(_parent(entry) == os.getpid() for entry in Path("/proc").glob("[0-9]*/stat")),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            threads=int(status["Threads"]),
            temporary=sum(1 for _ in temporary.rglob("*")),
            resident_kib=int(status["VmRSS"].split()[0]),
        )

    def leaks(self, before: "Footprint") -> list[str]:
        """What there is more of than before, in words."""
        names = ("children", "descriptors", "threads", "temporary")
        grown = [name for name in names if getattr(self, name) > getattr(before, name)]
        return [f"{name}: {getattr(before, name)} to {getattr(self, name)}" for name in grown]


def _parent(stat: Path) -> int:
    """The parent of a process: the second field behind its name in brackets (proc(5))."""
    try:
        return int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def request(number: int) -> tuple[Request, str]:
    """The run of this number, and its right result."""
    faulty, mode, io = number % 2 == 1, ("legacy", "modern")[number // 2 % 2], ("idle", "busy")[number // 4 % 2]
    asked = Request(
        kernel=str(fetch(f"linux-image-{RELEASE}")),
        modules=str(faulty_module(RELEASE).parent) if faulty else None,
        axes={"mode": mode, "io": io},
        accel="tcg",
        advisories=("CVE-2024-42134",),
    )
    return asked, "oops" if faulty and mode == "legacy" else "survived"


def _told(proof: Proof) -> str:
    return f"{proof.runs[0].result}: {proof.runs[0].detail}"


def soak(runs: int, cycles: int, temporary: Path) -> list[str]:
    """Do it; what went wrong, in words."""
    wrong: list[str] = []
    results: Counter[str] = Counter()
    steps: list[Footprint] = []
    started = time.monotonic()
    for number in range(runs):
        asked, right = request(number)
        evidence = temporary / "evidence"
        proof = perform(msgspec.structs.replace(asked, evidence=str(evidence)))
        for path in sorted(evidence.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        evidence.rmdir()
        results[proof.runs[0].result] += 1
        if proof.runs[0].result != right:
            wrong.append(f"run {number}: {right} was expected, not {_told(proof)}")
        steps.append(Footprint.now(temporary))
        leaks = steps[-1].leaks(steps[0])
        wrong += [f"run {number}: {leak}" for leak in leaks]
        mebibytes = steps[-1].resident_kib >> 10
        print(f"{number + 1}/{runs} {proof.runs[0].result}, {mebibytes} MiB {' '.join(leaks)}", flush=True)
    words = ", ".join(f"{count} {word}" for word, count in sorted(results.items()))
    print(f"{runs} runs in a row in {time.monotonic() - started:.0f} s: {words}")
    before, after = (min(step.resident_kib for step in half) for half in (steps[: runs // 2], steps[runs // 2 :]))
    print(f"resident memory, the lowest of either half: {before >> 10} and {after >> 10} MiB; at the end: {steps[-1]}")
    if after > before + GROWTH_KIB:
        wrong.append(f"resident memory grew from {before} to {after} KiB")
    asked, _ = request(0)
    started = time.monotonic()
    proof = perform(msgspec.structs.replace(asked, repeat=cycles, evidence=str(temporary / "evidence")))
    print(f"{proof.runs[0].cycles} cycles in one run in {time.monotonic() - started:.0f} s: {_told(proof)}")
    if (proof.runs[0].result, proof.runs[0].cycles) != ("survived", cycles):
        wrong.append(f"{cycles} cycles: {_told(proof)}")
    return wrong


def main() -> int:
    """Soak, and say what leaked."""
    options = argparse.ArgumentParser(prog="make lab-soak", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--runs", type=int, default=100, help="at least two")
    options.add_argument("--cycles", type=int, default=100)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lab-soak-") as folder:
        tempfile.tempdir = folder
        wrong = soak(chosen.runs, chosen.cycles, Path(folder))
    print("\n".join(wrong) or "No leak and no flake.")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
