# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `ejectable kernel`, as text and as a document."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, structs

from ejectable.assess.kernels import Judged, status_of
from ejectable.model import EvidenceKind, Finding, KernelReport, Status, worst
from ejectable.report.document import Document, InputError, join, tag
from ejectable.report.text import MARKS, bullets, clean, paint, wrap

__all__ = ["KernelDocument", "as_document", "as_text", "next_steps", "status", "summary", "told"]

WORDS = {
    Status.AFFECTED: "carries the defect",
    Status.UNKNOWN: "could not be decided",
    Status.MITIGATED: "carries the defect, and it is repaired where it runs",
    Status.FIXED: "has the fix",
    Status.NOT_AFFECTED: "does not have the faulty code",
}


def status(judged: Sequence[Judged]) -> Status:
    """What all kernels together add up to; `unknown` where one could not be read and none is affected."""
    words = [status_of(report) for one in judged for report in one.kernels]
    if any(one.unreadable for one in judged):
        words.append(Status.UNKNOWN)
    return worst(words)


def summary(judged: Sequence[Judged]) -> str:
    """One line for a person."""
    reports = [report for one in judged for report in one.kernels]
    lost = [error for one in judged for error in one.unreadable]
    if len(reports) == 1 and not lost:
        return _headline(reports[0])
    if not reports and len(lost) == 1:
        return clean(lost[0].error).replace("\n", " ")
    if not reports:
        return f"None of {len(lost)} inputs was readable." if lost else "There is no kernel in there."
    words = [status_of(report) for report in reports]
    counts = [f"{words.count(word)} {word.replace('_', ' ')}" for word in Status if word in words]
    if lost:
        counts.append(f"{len(lost)} unreadable")
    return f"{len(reports)} kernel{'s' if len(reports) > 1 else ''}: {', '.join(counts)}."


def next_steps(judged: Sequence[Judged]) -> tuple[str, ...]:
    """What to do about it, in order."""
    steps: list[str] = []
    words = {status_of(report) for one in judged for report in one.kernels}
    if Status.AFFECTED in words:
        steps.append(
            "Do not hot-unplug a legacy virtio device from a machine that runs an affected kernel: "
            "run `ejectable check` there to see whether it has one."
        )
        steps.append("Run `ejectable fix` there for the remedies, the first of which is a kernel with the fix.")
    if any(_would_help(report) for one in judged for report in one.kernels):
        steps.append("Give the whole package, or the directory with the kernel and its modules: that adds evidence.")
    for one in judged:
        for error in one.unreadable:
            if error.hint and error.hint not in steps:
                steps.append(error.hint)
    return tuple(steps)


def _would_help(report: KernelReport) -> bool:
    """Whether more files may decide what was not: the code was not there, and could have been read."""
    executed = any(item.kind is EvidenceKind.EXECUTED for finding in report.findings for item in finding.evidence)
    return (
        status_of(report) is Status.UNKNOWN and not executed and report.format not in ("foreign", "source", "unknown")
    )


class UnreadInput(msgspec.Struct, frozen=True):
    """An input that could not be judged."""

    path: str
    error: str
    exit_code: int


class KernelDocument(Document, frozen=True, kw_only=True, tag=tag("kernel")):
    """`ejectable kernel`: does this kernel carry the defect?"""

    kernels: tuple[KernelReport, ...] = ()
    unreadable: Annotated[tuple[UnreadInput, ...], Meta(description="As `errors`, without the hints.")] = ()


def as_document(judged: Sequence[Judged], *, explain: bool = False) -> KernelDocument:
    """The document of `ejectable kernel`; with `explain`, the stories of the runs are in it."""
    lost = [error for one in judged for error in one.unreadable]
    return KernelDocument(
        status=status(judged),
        summary=summary(judged),
        next_steps=next_steps(judged),
        errors=tuple(join(InputError, error) for error in lost),
        kernels=tuple(told(report, explain=explain) for one in judged for report in one.kernels),
        unreadable=tuple(join(UnreadInput, error) for error in lost),
    )


def told(report: KernelReport, *, explain: bool) -> KernelReport:
    """The report as a document shows it: the story of a run is long, and there only when it was asked for."""
    if explain:
        return report
    findings = tuple(structs.replace(finding, explanation=()) for finding in report.findings)
    return structs.replace(report, findings=findings)


def as_text(judged: Sequence[Judged], *, colour: bool, width: int, explain: bool, quiet: bool) -> list[str]:
    """A block for each kernel: the answer first, then what it rests on."""
    lines: list[str] = []
    for one in judged:
        for report in one.kernels:
            if lines and not quiet:
                lines.append("")
            lines += _kernel(report, colour=colour, width=width, explain=explain, quiet=quiet)
    steps = next_steps([one for one in judged if one.kernels])
    if steps and not quiet:
        lines += ["", "Next steps", *bullets(steps, width=width, numbered=True)]
    if not quiet and len([report for one in judged for report in one.kernels]) > 1:
        lines += ["", summary(judged)]
    return lines


def _where(report: KernelReport) -> str:
    return f"{report.path}({report.member})" if report.member else report.path


def _headline(report: KernelReport) -> str:
    word = status_of(report)
    return clean(f"{MARKS[word]}: {_where(report)} {WORDS[word]}").replace("\n", " ")


def _kernel(report: KernelReport, *, colour: bool, width: int, explain: bool, quiet: bool) -> list[str]:
    word = status_of(report)
    mark = MARKS[word]
    lines = [paint(mark, word, colour=colour) + _headline(report)[len(mark) :]]
    if quiet:
        return lines
    about = [
        report.release and f"Linux {report.release}",
        report.arch,
        report.format,
        report.virtio_pci and f"virtio_pci {report.virtio_pci}",
    ]
    lines += wrap(", ".join(filter(None, about)), width=width, first="  ")
    if report.build_id:
        lines.append(f"  build-id {report.build_id}")
    for finding in report.findings:
        lines += _finding(finding, colour=colour, width=width, explain=explain)
    return lines


def _finding(finding: Finding, *, colour: bool, width: int, explain: bool) -> list[str]:
    word = paint(finding.status, finding.status, colour=colour)
    lines = [f"  {clean(finding.advisory)}: {word}" + (f" ({finding.justification})" if finding.justification else "")]
    lines += wrap(finding.reason, width=width, first="    ")
    if finding.conflict:
        lines += wrap("The evidence disagrees; the strongest kind decides:", width=width, first="    ")
    kinds = max((len(item.kind) for item in finding.evidence), default=0)
    for item in finding.evidence:
        lines += wrap(f"{item.detail} [{item.says}]", width=width, first=f"    {item.kind:<{kinds}}  ")
    if explain:
        lines += ["", *(f"    {clean(line)}" for line in finding.explanation), ""]
    return lines
