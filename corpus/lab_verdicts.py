# SPDX-License-Identifier: GPL-2.0-or-later
"""Prediction against proof: kernels of the corpus, each judged by its code and then really unplugged.

    make lab-verdicts               writes docs/lab-verdicts.md; exit code 2 if one of them disagrees
    make lab-verdicts ARGS=--few    a score of them

Results are kept as they come (in the corpus' cache); --fresh begins anew.

Modules run under the Debian kernel that they were built for. Of the kernels that the corpus builds whole (minutes
each), those take part that are in the cache.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.kernels import CONFIGS
from corpus.list import KERNELS, MODULES, STOCK
from corpus.modules import Module
from corpus.trees import architecture_of
from ejectable.assess.proof import Proof
from ejectable.errors import EjectableError
from ejectable.lab.request import Request, perform

__all__ = ["Subject", "subjects"]

TARGET = Path("docs/lab-verdicts.md")
FEWEST = 12


class Subject(msgspec.Struct, frozen=True):
    """A kernel: its package or image, and what goes before its own modules."""

    name: str
    architecture: str
    package: str  # of Debian's archive; or "" for
    image: Path | None = None  # a kernel that was built whole, in a folder with its config
    modules: Path | None = None
    machine: str | None = None
    trigger: str | None = None

    def request(self, evidence: str) -> Request:
        """One legacy and one modern disk, unplugged."""
        kernel = self.image or fetch(f"linux-image-{self.package}", self.architecture)
        return Request(
            kernel=str(kernel),
            modules=str(self.modules) if self.modules else None,
            axes={"mode": "legacy,modern", "machine": self.machine, "trigger": self.trigger},
            accel="tcg",
            busybox=str(fetch("busybox-static", "arm64")) if self.architecture == "arm64" else None,
            evidence=evidence,
            verdict=True,
            advisories=("CVE-2024-42134",),
            jobs=2,
        )


def subjects(*, few: bool) -> list[Subject]:
    """Debian's kernels, stock and with built modules, then what was built whole."""
    found = []
    for module in MODULES:
        # virtio_pci is built into the 6.12 kernels: a module of it cannot be loaded there.
        if module.family == "6.1" and not (few and _alike(module)):
            arch = "arm64" if module.arm else "amd64"
            found.append(Subject(module.name, arch, module.release, modules=module.path().parent))
    found += [Subject(release, architecture_of(release), release) for release in (STOCK[::8] if few else STOCK)]
    for kernel in KERNELS:
        folder = cache_folder() / "built" / kernel.name
        config = CONFIGS[kernel.config]
        if (folder / "manifest.json").exists():
            machine, trigger = ("virt" if config.arch == "arm64" else "q35"), "pcie-hotplug"
            if "ACPI" in config.options():
                machine, trigger = "pc", "acpi-eject"
            found.append(Subject(kernel.name, config.arch, "", folder, None, machine, trigger))
    return found


def _alike(module: Module) -> bool:
    """Whether there is one much like it among the score."""
    plain = module.compiler == "gcc-12" and module.variant in ("affected", "fixed")
    return module.compression != "none" or not module.btf or (module.arm and not plain)


class Verdict(msgspec.Struct, frozen=True):
    """What came of one."""

    name: str
    predicted: str
    proven: str
    agrees: bool | None

    @property
    def row(self) -> str:
        """A line of the table."""
        words = {True: "agree", False: "**DISAGREE**", None: "nothing to compare"}[self.agrees]
        return f"| {self.name} | {self.predicted} | {self.proven} | {words} |"


def verdict(name: str, proof: Proof) -> Verdict:
    """What a proof with a prediction comes to."""
    told = [
        f"{run.mode}: {run.result}{f' ({run.detail})' if run.result in ('no-boot', 'no-unplug', 'hang') else ''}"
        for run in proof.runs
    ]
    told += [reason for reason, _ in proof.reasons]
    prediction = proof.prediction
    return Verdict(
        name,
        prediction.status if prediction else "",
        "; ".join(told),
        prediction.agrees if prediction else None,
    )


def main() -> int:
    """Judge and unplug what is not known yet; write the page."""
    options = argparse.ArgumentParser(prog="make lab-verdicts", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--few", action="store_true", help="a score of them")
    options.add_argument("--fresh", action="store_true", help="forget earlier results")
    chosen = options.parse_args()
    keep = cache_folder() / "lab-verdicts.jsonl"
    if chosen.fresh:
        keep.unlink(missing_ok=True)
    lines = keep.read_bytes().splitlines() if keep.exists() else []
    known = {one.name: one for one in (msgspec.json.decode(line, type=Verdict) for line in lines)}
    wanted = subjects(few=chosen.few)
    for subject in wanted:
        if subject.name in known:
            continue
        with tempfile.TemporaryDirectory(prefix="lab-verdicts-") as evidence:
            try:
                known[subject.name] = verdict(subject.name, perform(subject.request(evidence)))
            except EjectableError as error:
                print(f"{subject.name}: {error.message}", flush=True)
                continue
        print(known[subject.name].row, flush=True)
        with keep.open("ab") as file:
            file.write(msgspec.json.encode(known[subject.name]) + b"\n")
        write(list(known.values()))
    write(list(known.values()))
    agree = sum(one.agrees is True for one in known.values())
    disagree = sum(one.agrees is False for one in known.values())
    print(f"{agree} agree, {disagree} disagree, {len(known) - agree - disagree} not to be compared")
    return 2 if disagree or agree < FEWEST else 0


def write(known: list[Verdict]) -> None:
    """The page, of all that is known."""
    agree = sum(one.agrees is True for one in known)
    disagree = sum(one.agrees is False for one in known)
    lines = "\n".join(one.row for one in sorted(known, key=lambda one: one.name))
    TARGET.write_text(PAGE.format(agree=agree, disagree=disagree, lines=lines), encoding="utf-8")


PAGE = """<!-- Written by `make lab-verdicts`: do not edit. -->
# Prediction against proof

What `ejectable kernel` says of a kernel's code, and what happened when a disk was unplugged from its guest:
`ejectable lab --verdict`. A name that begins with `module` is a `virtio_pci.ko` under the Debian kernel that it was
built for, one that begins with `kernel` was built whole; the others are Debian's own. [The corpus](corpus.md) says what
each of them is.

{agree} kernels agree, {disagree} disagree.

| kernel | predicted | proven | |
|---|---|---|---|
{lines}
"""


if __name__ == "__main__":
    sys.exit(main())
