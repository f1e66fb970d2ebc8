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
from ejectable.assess.kernels import judge
from ejectable.errors import BadInput, EjectableError
from ejectable.model import SAFE, EvidenceKind, Finding, KernelReport, Status
from ejectable.remedies.situation import Situation
from ejectable.remedies.upgrade.backend import Package

__all__ = ["Judged", "as_named", "judge_files", "judge_installed", "judge_packages"]

CODE = (EvidenceKind.EXECUTED, EvidenceKind.DISASSEMBLY)

Download = Callable[[Sequence[Package]], list[Path]]


class Judged(msgspec.Struct, frozen=True):
    """What a kernel's code says for this machine: `good` has the guard or never had the defect."""

    word: Literal["good", "affected", "unknown", "unfit"]
    why: str  # a sentence's end: "it tests the pointer before it calls it"
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
    """Download the image, and the parts one by one as long as a module that counts was not met."""
    files = download([image])
    report = _report(situation, files)
    for part in parts:
        if _located(situation, report):
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
    # Its configuration may name a module that none of these packages holds.
    modules = {name: None if place == "module" and kernel.module(name) is None else place
               for name, place in report.modules.items()}  # fmt: skip
    return msgspec.structs.replace(report, modules=modules)


def _located(situation: Situation, report: KernelReport) -> bool:
    """Whether the code that counts was in what was read: that of the defects which have to be cured."""
    ids = situation.concerned or frozenset(situation.advisories)
    asked = {situation.advisories[name].code.module for name in ids}
    return all(report.modules.get(module) in ("builtin", "module") for module in asked if module)


def judge_installed(situation: Situation, path: str) -> Judged:
    """Judge an image on the disk of the machine, with the modules that modprobe would load under it."""
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

    machine = situation.facts.host.arch
    if report.arch and machine and report.arch != machine:
        raise BadInput(f"expected a kernel for {machine}, found one for {report.arch}", path=report.path)
    devices = situation.facts.devices or ()
    concerned = situation.concerned or frozenset(situation.advisories)
    findings = [finding for finding in report.findings if finding.advisory in concerned]
    cured = [finding for finding in findings if finding.status in SAFE]
    left = [finding for finding in report.findings if finding.status is Status.AFFECTED]
    open_ones = [finding for finding in findings if finding.status is Status.UNKNOWN]
    fresh = [finding for finding in left if finding.advisory not in concerned and _met(situation, finding)]
    if left and (fresh or not cured):
        finding = (fresh or left)[0]
        return judged("affected", f"{finding.advisory}, which this machine does not meet now: {finding.reason}"
                      if fresh else finding.reason)  # fmt: skip
    if not cured:
        return judged("unknown", open_ones[0].reason if open_ones else "nothing was found out")
    for finding in cured:
        advisory = situation.advisories[finding.advisory]
        module = advisory.code.module
        place = report.modules.get(module, "builtin") if module else "builtin"
        if place == "absent" and any(map(advisory.concerns, devices)):
            return judged("unfit", f"it has no {module} driver: devices of this machine would be gone")
        refuted = next(filter(None, (advisory.refutes(device, finding) for device in devices)), None)
        if refuted is not None:
            return judged("unfit", f"it cannot drive a device as it is here: {refuted}")
        if place not in ("builtin", "module", "absent"):
            return judged("unknown", f"{module} was in none of the files that were read")
        said = [item for item in finding.evidence if item.kind in CODE and item.says in SAFE]
        if not said or any(item.says is Status.AFFECTED for item in finding.evidence if item.kind in CODE):
            return judged("unknown", f"its code does not prove it: {finding.reason}")
    why = cured[0].reason if len(concerned) == 1 else f"{', '.join(one.advisory for one in cured)}: {cured[0].reason}"
    stays = ", ".join(finding.advisory for finding in (*left, *open_ones))
    return judged("good", f"{why}. It still has, or may have, {stays}" if stays else why)


def _met(situation: Situation, finding: Finding) -> bool:
    """Whether a device of this machine comes to the code of a finding, or may."""
    advisory = situation.advisories[finding.advisory]
    reached = (advisory.exposure(device, finding) for device in situation.facts.devices or ())
    return any(reach is not None and reach.met is not False for reach in reached)
