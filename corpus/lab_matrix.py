# SPDX-License-Identifier: GPL-2.0-or-later
"""Try every combination of the lab on a faulty and on a stock kernel, and write the table of docs/lab-matrix.md.

    make lab-matrix                       everything: hours on two cores
    make lab-matrix ARGS="--limit 100"    the next hundred runs
    make lab-matrix ARGS=--table          only write the table, from what is known

Results are kept as they come (in the corpus' cache), so that an interrupted matrix goes on where it was; --fresh
begins anew. Whatever contradicts the claim (a legacy device on the faulty kernel crashes, everything else survives)
stands out in the table and makes the exit code 2.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.lab_matrix_table import page
from corpus.modules import faulty_module
from ejectable.lab.accelerator import Accelerator
from ejectable.lab.busybox import busybox
from ejectable.lab.case import AXES, DEVICES, TRIGGERS, Case
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.matrix import Plan, plan
from ejectable.lab.session import Done, Session

__all__ = ["SUBJECTS", "Known", "Subject"]

TARGET = Path("docs/lab-matrix.md")
CHUNK = 48  # runs of one kernel, before another has its turn


class Subject(msgspec.Struct, frozen=True):
    """A kernel of Debian's, stock or with the faulty callback put back, and the part of the matrix it is for."""

    release: str
    architecture: str  # Debian's word
    machines: tuple[str, ...]
    triggers: tuple[str, ...]
    faulty: bool

    def kernel(self) -> GuestKernel:
        """Read it; built and downloaded on first use."""
        package = fetch(f"linux-image-{self.release}", self.architecture)
        modules = str(faulty_module(self.release).parent) if self.faulty else None
        return open_kernel(str(package), modules=modules)

    def plan(self, kernel: GuestKernel) -> Plan:
        """Every combination of its part."""
        return plan(kernel, {**AXES, "machine": self.machines, "trigger": self.triggers})


class Known(msgspec.Struct, frozen=True):
    """What one run came to."""

    release: str
    faulty: bool
    case: Case
    result: str
    advisory: str | None
    driven: str | None
    warnings: int  # what the crash reader found beside the crash

    @property
    def as_said(self) -> bool:
        """Whether it is what the description of the defect says."""
        if self.driven != self.case.driven:
            return False
        if not self.faulty or self.case.driven == "modern":
            return self.result == "survived"
        return self.result == ("panic" if self.case.panic_on_oops else "oops") and self.advisory == "CVE-2024-42134"


# SHPC is not in Debian's cloud kernels.
REST = tuple(trigger for trigger in TRIGGERS if trigger != "shpc")
SUBJECTS = tuple(
    Subject(release, architecture, machines, triggers, faulty)
    for faulty in (True, False)
    for release, architecture, machines, triggers in (
        ("6.1.0-50-cloud-amd64", "amd64", ("pc", "q35"), REST),
        ("6.1.0-50-amd64", "amd64", ("pc", "q35"), ("shpc",)),
        ("6.1.0-50-cloud-arm64", "arm64", ("virt",), TRIGGERS),
    )
)


# The kernel lets five seconds pass after the button of these is pressed: others can run meanwhile.
SLOW = ("pcie-hotplug", "shpc")


def urgency(case: Case, *, faulty: bool) -> tuple[int, int, bool]:
    """What is tried first: few axes turned; last what can hardly matter (panic_on_oops where nothing oopses)."""
    panic = case.panic_on_oops * (2 if not faulty or case.driven == "modern" else 1)
    second = case.machine == ("pc" if case.trigger in SLOW else "q35")
    return (panic + case.under_io + second, DEVICES.index(case.device) // 3, case.trigger in SLOW)


def chunks(plans: dict[Subject, Plan], known: set[tuple[str, bool, Case]]) -> Iterator[tuple[Subject, list[Case]]]:
    """What is not known yet, the urgent first, kernel by kernel."""
    waiting = [
        (urgency(case, faulty=subject.faulty), number, subject, case)
        for number, (subject, made) in enumerate(plans.items())
        for case in made.cases
        if (subject.release, subject.faulty, case) not in known
    ]
    waiting.sort(key=lambda one: one[:2])
    while waiting:
        first = waiting[0]
        same = [one for one in waiting if one[:2] == first[:2]][:CHUNK]
        yield first[2], [one[3] for one in same]
        waiting = waiting[len(same) :]


def run(subject: Subject, kernel: GuestKernel, cases: list[Case], keep: Path, jobs: int) -> list[Known]:
    """Try some cases; each result is kept as it comes."""
    given = str(fetch("busybox-static", "arm64")) if subject.architecture == "arm64" else None
    found: list[Known] = []

    def finished(case: Case, done: Done) -> None:
        one, outcome = done.run, done.outcome
        crashes = 1 if one.result in ("oops", "panic") else 0
        warnings = max(0, len([event for event in outcome.events if event.follows is None]) - crashes)
        found.append(Known(subject.release, subject.faulty, case, one.result, one.advisory, one.driven, warnings))
        with keep.open("a", encoding="utf-8") as file:
            file.write(msgspec.json.encode(found[-1]).decode() + "\n")
        print(f"  {case.name}: {one.result}{'' if found[-1].as_said else f'   NOT AS SAID: {one.detail}'}", flush=True)

    session = Session(
        kernel=kernel,
        busybox=busybox(kernel.arch, given),
        accelerator=Accelerator("tcg", "as asked for"),
        jobs=jobs * (2 if cases[0].trigger in SLOW else 1),
        finished=finished,
    )
    asyncio.run(session.run(cases))
    return found


def main() -> int:
    """Run what is not known yet, then write the page."""
    options = argparse.ArgumentParser(prog="make lab-matrix", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--fresh", action="store_true", help="forget earlier results")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--limit", type=int, default=1_000_000, help="stop after so many runs")
    options.add_argument("--table", action="store_true", help="write the page from what is known, run nothing")
    chosen = options.parse_args()
    keep = cache_folder() / "lab-matrix.jsonl"
    if chosen.fresh:
        keep.unlink(missing_ok=True)
    lines = keep.read_bytes().splitlines() if keep.exists() else []
    known = [msgspec.json.decode(line, type=Known) for line in lines]
    kernels = {subject: subject.kernel() for subject in SUBJECTS}
    plans = {subject: subject.plan(kernel) for subject, kernel in kernels.items()}
    done = 0
    for subject, cases in chunks(plans, {(one.release, one.faulty, one.case) for one in known}):
        if chosen.table or done >= chosen.limit:
            break
        print(f"{subject.release}, {'faulty' if subject.faulty else 'stock'}: {len(cases)} runs", flush=True)
        known += run(subject, kernels[subject], cases[: chosen.limit - done], keep, chosen.jobs)
        done += len(cases)
    text, wrong = page(plans, known)
    TARGET.write_text(text, encoding="utf-8")
    print(
        f"{TARGET}: {len(known)} of {sum(len(made.cases) for made in plans.values())} known, {wrong} against the claim"
    )
    return 2 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("Stopped; what is known is kept, and the next call goes on from there.")
