# SPDX-License-Identifier: GPL-2.0-or-later
"""Doubts added to the findings of a kernel: a safe word beside one becomes `unknown`, by `Finding.doubted`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ejectable.host import PatchedFunction
from ejectable.model import Device, Doubt, DoubtKind, Finding, KernelReport, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = [
    "downgrade_doubted",
    "downgrade_in_transition",
    "downgrade_live_patched",
    "downgrade_refuted",
    "downgrade_unlocated",
    "downgrade_unproven",
]


def downgrade_doubted(report: KernelReport, doubts: Sequence[Doubt]) -> KernelReport:
    """The report with these doubts about all that it says."""
    return _each(report, lambda finding: finding.doubted(*doubts))


def downgrade_unproven(report: KernelReport, what: str, only: Collection[str] | None = None) -> KernelReport:
    """The report of a file that has the right name, and nothing else that says it is what runs.

    `only` are the advisories whose findings rest on it; all of them if it is `None`.

    An upgrade replaces the file of a release while the old code runs on: a safe word about the file is none about
    the machine. A bad one is a warning that stands.
    """

    def doubted(finding: Finding) -> Finding:
        detail = f"Nothing shows that this file is the same build as {what}. Of the file: {finding.reason}"
        return finding.doubted(Doubt(DoubtKind.IDENTITY, report.path, detail))

    return _each(report, lambda finding: doubted(finding) if only is None or finding.advisory in only else finding)


def downgrade_unlocated(report: KernelReport, module: str, only: Collection[str]) -> KernelReport:
    """The report of an image of which a module was not found: the code that `only` are about was not read at all."""
    missing = Doubt(
        DoubtKind.MISSING,
        report.path,
        f"The {module} module that is loaded was not found on disk, so its code could not be read.",
    )

    def unlocated(finding: Finding) -> Finding:
        doubted = finding.doubted(missing)
        if doubted.status is Status.UNKNOWN:
            return msgspec.structs.replace(doubted, reason=missing.detail)
        return doubted

    known = {name: None if name == module else place for name, place in report.modules.items()}
    found = _each(report, lambda finding: unlocated(finding) if finding.advisory in only else finding)
    return msgspec.structs.replace(found, modules=known)


def downgrade_live_patched(
    report: KernelReport, patched: Sequence[PatchedFunction], in_memory: KernelReport | None
) -> KernelReport:
    """The report of a file on disk, where live patches replace functions that its findings rest on.

    What replaces them is seen in memory only. Where that decided nothing, neither `affected` nor a safe word can be
    said of the file.
    """
    decided = {f.advisory for f in in_memory.findings if f.status is not Status.UNKNOWN} if in_memory else set()

    def replaced(finding: Finding) -> Finding:
        hit = _replaced(finding, patched)
        if not hit or finding.advisory in decided:
            return finding
        names = ", ".join(sorted({one.function for one in hit}))
        detail = f"A live patch replaces {names}, and what replaces it can be read by root only. On disk: "
        doubt = Doubt(DoubtKind.CONTRADICTED, str(hit[0]), detail + finding.reason)
        doubted = finding.doubted(doubt)
        return msgspec.structs.replace(doubted, status=Status.UNKNOWN, justification=None, reason=doubt.detail)

    return _each(report, replaced)


def downgrade_in_transition(report: KernelReport, patched: Sequence[PatchedFunction]) -> KernelReport:
    """The report, where a live patch of a function that it rests on is being put in or taken out.

    Until that ends some tasks run the old code and some the new, whatever memory shows
    (Documentation/livepatch/livepatch.rst, "Consistency model").
    """

    def changing(finding: Finding) -> Finding:
        hit = [one for one in _replaced(finding, patched) if one.in_transition]
        if not hit:
            return finding
        detail = f"The live patch {hit[0].patch} is in transition: some tasks run {hit[0].function} as it was. "
        return finding.doubted(Doubt(DoubtKind.CHANGING, str(hit[0]), detail + finding.reason))

    return _each(report, changing)


def _replaced(finding: Finding, patched: Sequence[PatchedFunction]) -> list[PatchedFunction]:
    """The replaced functions that the evidence was found by; the compiler's suffixes (.isra.0, .cold) do not count."""
    rests_on = {name.partition(".")[0] for item in finding.evidence for name in item.functions}
    return [one for one in patched if one.function.partition(".")[0] in rests_on]


def downgrade_refuted(
    report: KernelReport, devices: Sequence[Device], advisories: Mapping[str, "Advisory"]
) -> KernelReport:
    """The report, with a doubt where a device of the machine shows what its words rule out."""

    def refuted(finding: Finding) -> Finding:
        for device in devices:
            seen = advisories[finding.advisory].refutes(device, finding)
            if seen is not None:
                detail = f"{seen}, which refutes what was read: {finding.reason}"
                return finding.doubted(Doubt(DoubtKind.CONTRADICTED, device.address or device.name, detail))
        return finding

    return _each(report, refuted)


def _each(report: KernelReport, change: Callable[[Finding], Finding]) -> KernelReport:
    return msgspec.structs.replace(report, findings=tuple(map(change, report.findings)))
