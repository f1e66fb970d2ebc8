# SPDX-License-Identifier: GPL-2.0-or-later
"""Prediction against proof: kernels of the corpus, each judged by its code and then really unplugged.

make lab-verdicts               writes docs/lab-verdicts.md; exit code 2 if one of them disagrees
"""

import sys
import tempfile
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch, offered
from corpus.modules import Module
from ejectable.errors import EjectableError
from ejectable.lab.request import Request, perform

__all__: list[str] = []

TARGET = Path("docs/lab-verdicts.md")
# Variants of virtio_pci.ko, see corpus/patches.py: the faulty one as different compilers make it, and repairs.
RELEASE = "6.1.0-50-cloud-amd64"
MODULES = (
    Module(release=RELEASE),
    Module(release=RELEASE, compiler="clang-16", opt="Os", retpoline=False),
    Module(release=RELEASE, opt="Os"),
    Module(release=RELEASE, retpoline=False),
    Module(release=RELEASE, compression="xz"),
    Module(release=RELEASE, variant="fixed"),
    Module(release="6.1.0-50-cloud-arm64"),
)
STOCK = (
    ("6.1.0-", "cloud-amd64", 3),
    ("6.12.", "cloud-amd64", 3),
    ("6.1.0-", "cloud-arm64", 2),
    ("6.12.", "cloud-arm64", 2),
)


class Subject(msgspec.Struct, frozen=True):
    """A kernel, and what goes before its own modules."""

    name: str
    package: Path
    modules: str | None = None


def subjects() -> list[Subject]:
    """At least a dozen: built ones first, then what the archive has."""
    found = []
    for module in MODULES:
        package = fetch(f"linux-image-{module.release}", "arm64" if module.arm else "amd64")
        found.append(Subject(f"{module.release} with {module.name}", package, str(module.path().parent)))
    for prefix, flavour, most in STOCK:
        names = [name for name in offered(f"linux-image-{prefix}") if name.endswith(flavour)]
        architecture = flavour.rpartition("-")[2]
        found += [Subject(name.removeprefix("linux-image-"), fetch(name, architecture)) for name in names[-most:]]
    for folder in sorted((cache_folder() / "built").glob("kernel-*")):
        found += [Subject(folder.name, image) for image in (*folder.glob("bzImage*"), *folder.glob("Image*"))]
    return found


def main() -> int:
    """Judge and unplug each; write the page."""
    lines, wrong, compared = [], 0, 0
    for subject in subjects():
        arm = "arm64" in subject.name
        with tempfile.TemporaryDirectory(prefix="lab-verdicts-") as evidence:
            request = Request(
                kernel=str(subject.package),
                modules=subject.modules,
                axes={"mode": "legacy,modern"},
                busybox=str(fetch("busybox-static", "arm64")) if arm else None,
                evidence=evidence,
                verdict=True,
                advisories=("CVE-2024-42134",),
                jobs=2,
            )
            try:
                proof = perform(request)
            except EjectableError as error:
                lines.append(f"| {subject.name} | {error.message[:80]} | | |")
                continue
        prediction = proof.prediction
        assert prediction is not None
        agrees = {True: "agree", False: "**DISAGREE**", None: "nothing to compare"}[prediction.agrees]
        wrong += prediction.agrees is False
        compared += prediction.agrees is not None
        results = ", ".join(f"{run.mode}: {run.result}" for run in proof.runs)
        lines.append(f"| {subject.name} | {prediction.status} | {results} | {agrees} |")
        print(lines[-1], flush=True)
    head = [
        "<!-- Written by `make lab-verdicts`: do not edit. -->",
        "# Prediction against proof",
        "",
        "What `ejectable kernel` says of a kernel's code, and what happened when a disk was unplugged from its guest.",
        f"{compared} kernels compared, {wrong} disagree.",
        "",
        "| kernel | predicted | proven | |",
        "|---|---|---|---|",
    ]
    TARGET.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
