# SPDX-License-Identifier: GPL-2.0-or-later
"""Verifies that the fix is in a kernel, of a package or a file on disk, by reading and judging its code.

A good word counts only where the code itself was run or read: neither a version nor a changelog nor the absence of a
module that may be in another package says anything here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ejectable.assess.installed import Judge
from ejectable.assess.kernels import judge, status_of
from ejectable.errors import BadInput, EjectableError
from ejectable.model import SAFE, EvidenceKind, Justification, KernelReport, Status
from ejectable.remedies.situation import Situation
from ejectable.remedies.upgrade.backend import Package

__all__ = ["Judged", "as_named", "judge_files", "judge_installed", "judge_packages"]

CODE = (EvidenceKind.EXECUTED, EvidenceKind.DISASSEMBLY)

Download = Callable[[Sequence[Package]], list[Path]]


class Judged(msgspec.Struct, frozen=True):
    """What a kernel's code says for this machine: `good` has the guard or never had the defect."""

    word: Literal["good", "affected", "unknown", "unfit"]
    why: str  # a sentence's end: "`vp_del_vqs` tests the pointer before it calls it"
    release: str | None = None
    build_id: str | None = None


def judge_packages(
    situation: Situation, image: Package, parts: Sequence[Package], download: Download | None
) -> Judged | None:
    """Judge a kernel on offer; `None` where it was not judged before and may not be downloaded.

    The verdict is kept by the versions and hashes of all packages that may belong to it.
    """
    key = (*sorted(situation.advisories), "package", *(_identity(package) for package in (image, *parts)))
    whole = all(package.digest for package in (image, *parts))
    kept = situation.verdicts.get(key) if whole else None
    if kept is None:
        if download is None:
            return None
        kept = _read(situation, image, parts, download)
        if whole:
            situation.verdicts.put(key, kept)
    return _fit(situation, kept)


def _identity(package: Package) -> str:
    return f"{package.name}_{package.version}_{package.arch}:{package.digest}"


def _read(situation: Situation, image: Package, parts: Sequence[Package], download: Download) -> KernelReport:
    """Download the image, and the parts one by one as long as virtio_pci was not met."""
    files = download([image])
    report = _report(situation, files)
    for part in parts:
        if _located(report):
            break
        files += download([part])
        report = _report(situation, files)
    return msgspec.structs.replace(report, path=files[0].name)


def judge_files(situation: Situation, files: Sequence[Path]) -> Judged:
    """Judge packages that were downloaded already, all of them together."""
    return _fit(situation, _report(situation, files))


def _report(situation: Situation, files: Sequence[Path]) -> KernelReport:
    from ejectable.kernel.package_set import open_package_set

    situation.tell(f"reading {files[0].name}")
    kernel = open_package_set(files, limits=situation.limits)
    report = judge(kernel, situation.advisories)
    if report.virtio_pci == "module" and kernel.module("virtio_pci") is None:
        # Its configuration names a module that none of these packages holds.
        return msgspec.structs.replace(report, virtio_pci=None)
    return report


def _located(report: KernelReport) -> bool:
    """Whether the code that counts was in what was read."""
    return report.virtio_pci in ("builtin", "module")


def judge_installed(situation: Situation, path: str) -> Judged:
    """Judge an image on the disk of the machine, with the virtio_pci.ko that modprobe would load under it."""
    situation.tell(f"reading {path}")
    judge_image = Judge(situation.root, situation.advisories, situation.limits, situation.verdicts).judge
    try:
        report = judge_image(situation.root.resolve(path) or path).report
    except EjectableError as error:
        return Judged("unknown", error.message)
    return _fit(situation, report)


def as_named(judged: Judged, release: str | None) -> Judged:
    """The judgement, unless the package holds another kernel than its name says: then it says nothing of that one."""
    if judged.word != "good" or release in (None, judged.release):
        return judged
    why = f"its name says {release}, and the kernel in it is {judged.release}"
    return msgspec.structs.replace(judged, word="unknown", why=why)


def _fit(situation: Situation, report: KernelReport) -> Judged:
    """What a report means for this machine."""

    def judged(word: Literal["good", "affected", "unknown", "unfit"], why: str) -> Judged:
        return Judged(word, why.rstrip("."), report.release, report.build_id)

    status = status_of(report)
    reasons = {finding.status: finding.reason for finding in report.findings}
    machine = situation.facts.host.arch
    if report.arch and machine and report.arch != machine:
        raise BadInput(f"expected a kernel for {machine}, found one for {report.arch}", path=report.path)
    if status is Status.AFFECTED:
        return judged("affected", reasons[status])
    if status not in SAFE:
        return judged("unknown", reasons.get(status, "nothing was found out"))
    if report.virtio_pci == "absent":
        return judged("unfit", "it has no virtio_pci driver: this machine's virtio devices would be gone")
    if not _located(report):
        return judged("unknown", "virtio_pci was in none of the files that were read")
    legacy = [device for device in situation.facts.devices or () if device.mode == "legacy"]
    for finding in report.findings:
        said = [item for item in finding.evidence if item.kind in CODE and item.says in SAFE]
        if finding.justification == Justification.NOT_REACHED and legacy:
            return judged("unfit", f"it cannot drive a legacy device at all, and {legacy[0].name} is one")
        if not said or any(item.says is Status.AFFECTED for item in finding.evidence if item.kind in CODE):
            return judged("unknown", f"its code does not prove it: {finding.reason}")
    return judged("good", reasons[status])
