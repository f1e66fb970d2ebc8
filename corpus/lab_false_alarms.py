# SPDX-License-Identifier: GPL-2.0-or-later
"""False alarms of the lab: stock kernels without the defect, unplugged many times on a host that is busy.

    make lab-false-alarms                       40 runs; writes docs/lab-false-alarms.md; exit code 2 for an alarm
    make lab-false-alarms ARGS="--runs 200"     so many more

Every run has one right answer: not affected. `affected` is a false alarm. `unknown` is none, and is listed with its
reason. Results are kept as they come (in the corpus' cache); --fresh begins anew.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.trees import architecture_of
from ejectable.errors import EjectableError
from ejectable.lab.request import Request, perform
from ejectable.model import Status

__all__ = ["RELEASES", "Known", "page", "request"]

TARGET = Path("docs/lab-false-alarms.md")
RELEASES = (
    "6.1.0-50-cloud-amd64",
    "6.12.117+deb12-cloud-amd64",
    "6.1.0-50-cloud-arm64",
    "6.1.0-54-cloud-amd64",
    "6.12.117+deb12-cloud-arm64",
    "6.1.0-56-cloud-amd64",
)
# Run by run, device, mode, trigger and I/O take turns, at different paces.
DEVICES = ("disk", "nic", "scsi", "rng", "balloon", "console", "disk")
MODES = ("legacy", "legacy", "forced-legacy")
TRIGGERS = {"amd64": ("acpi-eject", "acpi-eject", "sysfs-remove", "virtio-unbind"), "arm64": ("pcie-hotplug",)}


class Known(msgspec.Struct, frozen=True):
    """What came of one run."""

    release: str
    case: str
    status: Status
    result: str
    attempts: int
    detail: str
    load: float  # processes that wanted to run, on average of the last minute, when it ended


def request(number: int, evidence: str) -> Request:
    """The run of this number."""
    release = RELEASES[number % len(RELEASES)]
    turn = number // len(RELEASES)
    architecture = architecture_of(release)
    triggers = TRIGGERS[architecture]
    return Request(
        kernel=str(fetch(f"linux-image-{release}", architecture)),
        axes={
            "device": DEVICES[(turn + number) % len(DEVICES)],
            "mode": MODES[turn % len(MODES)],
            "trigger": triggers[turn % len(triggers)],
            "io": ("idle", "busy")[turn % 2],
            "panic-on-oops": ("0", "1")[turn // 2 % 2],
        },
        accel="tcg",
        busybox=str(fetch("busybox-static", "arm64")) if architecture == "arm64" else None,
        evidence=evidence,
        advisories=("CVE-2024-42134",),
    )


def attempt(number: int) -> Known:
    """Run it, and keep what it came to."""
    with tempfile.TemporaryDirectory(prefix="lab-false-alarms-") as evidence:
        asked = request(number, evidence)
        proof = perform(asked)
    told = proof.runs[0] if proof.runs else None
    return Known(
        release=RELEASES[number % len(RELEASES)],
        case=" ".join(f"{value}" for value in asked.axes.values()),
        status=proof.status,
        result=told.result if told else "skipped",
        attempts=told.attempts if told else 0,
        detail=told.detail if told else "; ".join(reason for reason, _ in proof.reasons),
        load=round(os.getloadavg()[0], 1),
    )


def page(known: Sequence[Known]) -> str:
    """The document, of all that is known."""
    alarms = [one for one in known if one.status is Status.AFFECTED]
    unknown = [one for one in known if one.status is Status.UNKNOWN]
    rows = []
    for release in RELEASES:
        here = [one for one in known if one.release == release]
        words = Counter(one.status for one in here)
        cells = (len(here), words[Status.NOT_AFFECTED], words[Status.UNKNOWN], words[Status.AFFECTED])
        rows.append(f"| {release} | {' | '.join(str(cell) for cell in cells)} |")
    loads = [one.load for one in known] or [0.0]
    listed = [f"- {one.release}, {one.case}: {one.status}, {one.result}: {one.detail}" for one in (*alarms, *unknown)]
    return PAGE.format(
        runs=len(known),
        alarms=len(alarms),
        twice=sum(one.attempts > 1 for one in known),
        low=min(loads),
        high=max(loads),
        cores=os.cpu_count(),
        rows="\n".join(rows),
        listed="\n".join(listed) or "None.",
    )


def main() -> int:
    """Run what is asked for, and write the page."""
    options = argparse.ArgumentParser(prog="make lab-false-alarms", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--runs", type=int, default=40, help="how many, beside those that are known")
    options.add_argument("--fresh", action="store_true", help="forget earlier results")
    chosen = options.parse_args()
    keep = cache_folder() / "lab-false-alarms.jsonl"
    if chosen.fresh:
        keep.unlink(missing_ok=True)
    lines = keep.read_bytes().splitlines() if keep.exists() else []
    known = [msgspec.json.decode(line, type=Known) for line in lines]
    for number in range(len(known), len(known) + chosen.runs):
        try:
            known.append(attempt(number))
        except EjectableError as error:
            print(f"{number}: {error.message}", flush=True)
            return 3
        print(f"{number} {known[-1].release} {known[-1].case}: {known[-1].status} ({known[-1].result})", flush=True)
        with keep.open("ab") as file:
            file.write(msgspec.json.encode(known[-1]) + b"\n")
        TARGET.write_text(page(known), encoding="utf-8")
    TARGET.write_text(page(known), encoding="utf-8")
    alarms = sum(one.status is Status.AFFECTED for one in known)
    print(f"{TARGET}: {len(known)} runs, {alarms} false alarms")
    return 2 if alarms else 0


PAGE = """<!-- Written by `make lab-false-alarms`: do not edit. -->
# False alarms of the lab

Debian's stock kernels do not have CVE-2024-42134. Each run boots one of them under emulation, takes a device away that
is driven as legacy, and should find nothing; device, trigger and I/O take turns.

**{runs} runs, {alarms} false alarms** (an answer `affected`). {twice} runs needed a second attempt.
{low} to {high} processes wanted to run meanwhile, on {cores} cores.

| kernel | runs | not affected | unknown | affected |
|---|---|---|---|---|
{rows}

What was not `not_affected`, with its reason:

{listed}
"""


if __name__ == "__main__":
    sys.exit(main())
