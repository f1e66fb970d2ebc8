# SPDX-License-Identifier: GPL-2.0-or-later
"""Prediction against proof: kernels of the corpus, each judged by its code and then really unplugged.

    make lab-verdicts               writes docs/lab-verdicts.md; exit code 2 if one of them disagrees
    make lab-verdicts ARGS=--few    a dozen of them

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
        arch = "arm64" if module.arm else "amd64"
        # virtio_pci is built into the 6.12 kernels: a module of it cannot be loaded there.
        if module.family == "6.1" and not (few and (module.arm or module.compression != "none" or not module.btf)):
            found.append(Subject(module.name, arch, module.release, modules=module.path().parent))
    found += [Subject(release, architecture_of(release), release) for release in (STOCK[-3:] if few else STOCK)]
    for kernel in () if few else KERNELS:
        folder = cache_folder() / "built" / kernel.name
        config = CONFIGS[kernel.config]
        if (folder / "manifest.json").exists():
            machine, trigger = ("virt" if config.arch == "arm64" else "q35"), "pcie-hotplug"
            if "ACPI" in config.options():
                machine, trigger = "pc", "acpi-eject"
            found.append(Subject(kernel.name, config.arch, "", folder, None, machine, trigger))
    return found


def row(subject: Subject, proof: Proof) -> str:
    """A line of the table."""
    prediction = proof.prediction
    if prediction is None:
        return f"| {subject.name} | | {'; '.join(reason for reason, _ in proof.reasons)} | not tried |"
    agrees = {True: "agree", False: "**DISAGREE**", None: "nothing to compare"}[prediction.agrees]
    results = "; ".join(
        f"{run.mode}: {run.result}{f' ({run.detail})' if run.result in ('no-boot', 'no-unplug', 'hang') else ''}"
        for run in proof.runs
    )
    skipped = "".join(f"; {reason}" for reason, _ in proof.reasons)
    return f"| {subject.name} | {prediction.status} | {results}{skipped} | {agrees} |"


def main() -> int:
    """Judge and unplug each; write the page."""
    options = argparse.ArgumentParser(prog="make lab-verdicts", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--few", action="store_true", help="a dozen")
    chosen = options.parse_args()
    lines: list[str] = []
    agree = disagree = 0
    for subject in subjects(few=chosen.few):
        with tempfile.TemporaryDirectory(prefix="lab-verdicts-") as evidence:
            try:
                proof = perform(subject.request(evidence))
            except EjectableError as error:
                lines.append(f"| {subject.name} | | {error.message} | not tried |")
                print(lines[-1], flush=True)
                continue
        lines.append(row(subject, proof))
        print(lines[-1], flush=True)
        if proof.prediction is not None:
            agree += proof.prediction.agrees is True
            disagree += proof.prediction.agrees is False
    if not chosen.few:
        TARGET.write_text(PAGE.format(agree=agree, disagree=disagree, lines="\n".join(lines)), encoding="utf-8")
    print(f"{agree} agree, {disagree} disagree, {len(lines) - agree - disagree} not to be compared")
    return 2 if disagree or agree < FEWEST else 0


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
