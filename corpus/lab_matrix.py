# SPDX-License-Identifier: GPL-2.0-or-later
"""Try every combination of the lab on a faulty and on a stock kernel, and write the table of docs/lab-matrix.md.

    make lab-matrix                 everything: hours on two cores
    make lab-matrix ARGS=--quick    every trigger with every mode on a disk, every device with every mode

Results are kept as they come (in the corpus' cache), so that an interrupted matrix goes on where it was; --fresh
begins anew. Whatever contradicts the claim (a legacy device on the faulty kernel crashes, everything else survives)
is marked in the table and makes the exit code 2.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.modules import faulty_module
from ejectable.lab.case import DEVICES, MODES, TRIGGERS
from ejectable.lab.request import Request, perform
from ejectable.model import Run

__all__: list[str] = []

TARGET = Path("docs/lab-matrix.md")
# Name → release, the machine for each trigger. SHPC is not in Debian's cloud kernels.
AMD64, AMD64_SHPC, ARM64 = "6.1.0-50-cloud-amd64", "6.1.0-50-amd64", "6.1.0-50-cloud-arm64"
Q35 = ("pcie-hotplug", "shpc")


class Row(msgspec.Struct, frozen=True):
    """One combination, on one kernel with one module."""

    faulty: bool
    release: str
    machine: str
    device: str
    mode: str
    trigger: str
    panic: str

    @property
    def key(self) -> str:
        """What its result is kept under."""
        return " ".join(str(value) for value in msgspec.structs.astuple(self))

    @property
    def expected(self) -> str:
        """What the defect's description says will happen."""
        if not self.faulty or self.mode in ("modern", "transitional"):
            return "survived"
        return "panic" if self.panic == "1" else "oops"


def rows(*, quick: bool) -> list[Row]:
    """All that is tried, in the order of the table."""
    wanted = []
    for faulty in (True, False):
        for arch in ("amd64", "arm64"):
            for trigger in TRIGGERS:
                for device in DEVICES[:-1]:
                    for mode in MODES:
                        for panic in ("0", "1"):
                            if arch == "arm64" and (trigger in ("acpi-eject", "shpc")):
                                continue
                            if quick and (device != "disk" and (trigger != "acpi-eject" and arch == "amd64")):
                                continue
                            if quick and arch == "arm64" and (device != "disk" or mode not in ("legacy", "modern")):
                                continue
                            if quick and panic == "1" and (mode != "legacy" or device != "disk"):
                                continue
                            if panic == "1" and not faulty:
                                continue
                            release = ARM64 if arch == "arm64" else AMD64_SHPC if trigger == "shpc" else AMD64
                            machine = "virt" if arch == "arm64" else "q35" if trigger in Q35 else "pc"
                            wanted.append(Row(faulty, release, machine, device, mode, trigger, panic))
    return wanted


def run(batch: list[Row], keep: Path, kept: dict[str, list[str]], jobs: int) -> None:
    """Try the rows of one kernel, machine and trigger, one mode and device after the other."""
    first = batch[0]
    arm = first.release.endswith("arm64")
    package = fetch(f"linux-image-{first.release}", "arm64" if arm else "amd64")
    modules = str(faulty_module(first.release).parent) if first.faulty else None
    request = Request(
        kernel=str(package),
        modules=modules,
        axes={
            "machine": first.machine,
            "trigger": first.trigger,
            "device": ",".join(dict.fromkeys(row.device for row in batch)),
            "mode": ",".join(dict.fromkeys(row.mode for row in batch)),
            "panic-on-oops": ",".join(dict.fromkeys(row.panic for row in batch)),
            "io": None,
        },
        busybox=str(fetch("busybox-static", "arm64")) if arm else None,
        jobs=jobs,
        advisories=("CVE-2024-42134",),
    )
    with tempfile.TemporaryDirectory(prefix="lab-matrix-") as evidence:
        request = msgspec.structs.replace(request, evidence=evidence)
        proof = perform(request, finished=lambda case, done: print(f"  {case.name}: {done.run.result}", flush=True))
    found = {(one.device, one.mode, str(one.panic_on_oops)): one for one in proof.runs}
    with keep.open("a", encoding="utf-8") as file:
        for row in batch:
            one: Run | None = found.get((row.device, row.mode, row.panic))
            kept[row.key] = [one.result, one.advisory or ""] if one else ["skipped", ""]
            file.write(msgspec.json.encode([row.key, kept[row.key]]).decode() + "\n")


def table(wanted: list[Row], kept: dict[str, list[str]]) -> tuple[str, int]:
    """The page, and how many results contradict the claim."""
    lines: list[str] = []
    wrong = 0
    for faulty in (True, False):
        name = "The faulty callback put back" if faulty else "Stock"
        lines += [
            "",
            f"## {name}",
            "",
            "| kernel | machine | trigger | device | panic_on_oops | " + " | ".join(MODES) + " |",
        ]
        lines.append("|" + "---|" * (5 + len(MODES)))
        seen: dict[tuple[str, ...], dict[str, str]] = {}
        for row in wanted:
            if row.faulty is not faulty or row.key not in kept:
                continue
            result, advisory = kept[row.key]
            as_said = result in (row.expected, "skipped") and (result not in ("oops", "panic") or advisory)
            wrong += not as_said
            word = result if as_said else f"**{result}** (expected {row.expected})"
            line = (row.release, row.machine, row.trigger, row.device, row.panic)
            seen.setdefault(line, {})[row.mode] = word
        for key, words in seen.items():
            lines.append("| " + " | ".join((*key, *(words.get(mode, "") for mode in MODES))) + " |")
    counted = sum(row.key in kept for row in wanted)
    head = [
        "<!-- Written by `make lab-matrix`: do not edit. -->",
        "# What was tried in the lab",
        "",
        f"{counted} runs under emulation (QEMU, TCG). The faulty kernel is Debian's, with a `virtio_pci.ko` that has",
        "the callback of v6.8 put back; every oops and panic below was matched to CVE-2024-42134 by the crash reader.",
        f"Results that contradict the description of the defect: {wrong}.",
    ]
    return "\n".join([*head, *lines, ""]), wrong


def main() -> int:
    """Run what is not known yet, then write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a selection")
    options.add_argument("--fresh", action="store_true", help="forget earlier results")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--limit", type=int, default=100_000, help="stop after so many runs")
    options.add_argument("--table", action="store_true", help="write the page from what is known, run nothing")
    chosen = options.parse_args()
    keep = cache_folder() / "lab-matrix.jsonl"
    if chosen.fresh:
        keep.unlink(missing_ok=True)
    kept: dict[str, list[str]] = {}
    if keep.exists():
        for line in keep.read_text(encoding="utf-8").splitlines():
            key, value = msgspec.json.decode(line)
            kept[key] = value
    wanted = rows(quick=chosen.quick)
    batches: dict[tuple[object, ...], list[Row]] = {}
    for row in wanted:
        if row.key not in kept:
            # A batch is a full product: what shares kernel, trigger and the policy on an Oops.
            batches.setdefault((row.faulty, row.release, row.trigger, row.device, row.panic), []).append(row)
    done = 0
    for key, batch in batches.items():
        if chosen.table or done >= chosen.limit:
            break
        print(" ".join(str(part) for part in key), flush=True)
        run(batch, keep, kept, chosen.jobs)
        done += len(batch)
    text, wrong = table(rows(quick=False), kept)
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {sum(row.key in kept for row in wanted)} of {len(wanted)} known, {wrong} against the claim")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
