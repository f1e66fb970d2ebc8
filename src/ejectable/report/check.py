# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `ejectable check`: one screen of text, or a document."""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ejectable.assess.checked import Checked, status_of
from ejectable.model import (
    SAFE,
    SEVERITY,
    Assessment,
    Device,
    Doubt,
    Finding,
    Host,
    KernelReport,
    Outcome,
    Status,
    worst,
)
from ejectable.report.devices_table import defects_met, table_of
from ejectable.report.document import Document, InputError, join, tag
from ejectable.report.kernel import told
from ejectable.report.text import MARKS, bullets, clean, paint, wrap

__all__ = ["CheckDocument", "as_document", "as_text", "summary"]

SCREEN = 24  # lines; the prompt takes one of them
MOST_OF_WHY = 3  # lines
MOST_REASONS = 2  # of findings that could not be decided
MOST_NAMED = 3
# What stands in the document for a root that could not be read.
NOTHING = Assessment(
    status=Status.UNKNOWN,
    summary="",
    next_steps=(),
    host=Host(None, None, None, None, None, None, None),
    kernel=None,
    devices=(),
    outcome=Outcome(None, "unknown", None, None),
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One of several roots."""

    status: Status
    summary: str
    next_steps: tuple[str, ...]
    root: str
    host: Host
    kernel: KernelReport | None
    devices: tuple[Device, ...]
    outcome: Outcome
    notes: tuple[str, ...]
    doubts: tuple[Doubt, ...]


class CheckDocument(Document, frozen=True, kw_only=True, tag=tag("check")):
    """`ejectable check`: would this machine crash if a device were unplugged now?"""

    root: Annotated[str | None, Meta(description="Which tree was looked at: / is this machine.")] = None
    host: Host = NOTHING.host
    kernel: KernelReport | None = None
    devices: tuple[Device, ...] = ()
    outcome: Outcome = NOTHING.outcome
    notes: Annotated[tuple[str, ...], Meta(description="What limits this answer, and what would add to it.")] = ()
    doubts: Annotated[tuple[Doubt, ...], Meta(description="What was not seen of the machine.")] = ()
    machines: Annotated[
        tuple[Machine, ...], Meta(description="With several --root: each, in order; the other keys are the worst's.")
    ] = ()


def as_document(checked: Sequence[Checked], *, explain: bool = False) -> CheckDocument:
    """The document of `ejectable check`: of one root, or of the worst of several with all of them in `machines`."""
    machines = [_entry(one, explain=explain) for one in checked]
    worst_one = machines[checked.index(_worst(checked))]
    return join(
        CheckDocument,
        worst_one,
        status=status_of(checked),
        summary=summary(checked),
        errors=tuple(join(InputError, one.error) for one in checked if one.error),
        machines=tuple(machines) if len(machines) > 1 else (),
    )


def _entry(one: Checked, *, explain: bool) -> Machine:
    assessment = one.assessment or NOTHING
    report = assessment.kernel
    return join(
        Machine,
        assessment,
        status=status_of([one]),
        summary=_summary(one),
        next_steps=_steps(one),
        root=one.root,
        kernel=None if report is None else told(report, explain=explain),
    )


def summary(checked: Sequence[Checked]) -> str:
    """One line for a person: the machine's own, or how many of them there are of each word."""
    if len(checked) == 1:
        return _summary(checked[0])
    words = [status_of([one]) for one in checked if one.assessment]
    counts = [f"{words.count(word)} {word.replace('_', ' ')}" for word in Status if word in words]
    lost = len(checked) - len(words)
    counts += [f"{lost} unreadable"] if lost else []
    return f"{len(checked)} machines: {', '.join(counts)}."


def _summary(one: Checked) -> str:
    if one.assessment:
        return one.assessment.summary
    return clean(one.error.error).replace("\n", " ") if one.error else "Nothing was read."


def _steps(one: Checked) -> tuple[str, ...]:
    if one.assessment:
        return one.assessment.next_steps
    return (one.error.hint,) if one.error and one.error.hint else ()


def _worst(checked: Sequence[Checked]) -> Checked:
    return min(checked, key=lambda one: SEVERITY.index(status_of([one])))


def as_text(checked: Sequence[Checked], *, colour: bool, width: int, verbose: bool, quiet: bool) -> list[str]:
    """The answer in the first line, of each machine where there are several, and then how many there are of each."""
    if len(checked) == 1:
        assessment = checked[0].assessment
        if assessment is None:
            return []  # what could not be read is said on standard error
        return _machine(assessment, colour=colour, width=width, verbose=verbose, quiet=quiet)
    lines: list[str] = []
    for one in checked:
        if one.assessment is None:
            continue
        if quiet:
            mark = _mark(one.assessment)
            lines.append(f"{paint(mark, one.assessment.status, colour=colour)}  {clean(one.root)}: {_summary(one)}")
            continue
        lines += [paint(clean(one.root), "bold", colour=colour), ""]
        lines += [*_machine(one.assessment, colour=colour, width=width, verbose=verbose, quiet=False), ""]
    return lines if quiet else [*lines, summary(checked)]


def _mark(assessment: Assessment) -> str:
    """The word in front. A kernel that is not known to be well is not "not affected" for want of devices."""
    kernel = worst(finding.status for finding in assessment.kernel.findings) if assessment.kernel else Status.UNKNOWN
    if assessment.status is Status.NOT_AFFECTED and kernel not in SAFE:
        return "NOT EXPOSED"
    return MARKS[assessment.status]


def _machine(assessment: Assessment, *, colour: bool, width: int, verbose: bool, quiet: bool) -> list[str]:
    """One machine. Without `verbose` it fits a screen of 80 columns and 24 lines."""
    mark = _mark(assessment)
    first, *rest = wrap(f"{mark}  {assessment.summary}", width=width, rest="  ")
    lines = [paint(mark, assessment.status, colour=colour) + first.removeprefix(mark), *rest]
    if quiet:
        return lines
    lines += ["", *_about(assessment, width=width)]
    steps = bullets(assessment.next_steps, width=width, numbered=True)
    notes = bullets(assessment.notes, width=width)
    table = table_of(assessment.devices, colour=colour, width=width)
    tail: list[str] = defects_met(assessment.devices, width=width)
    if steps:
        tail += ["", "Next steps", *steps]
    if verbose:
        lines += ["", *table] if table else []
        lines += _evidence(assessment.kernel, width=width)
        lines += tail
        return [*lines, "", "Notes", *notes] if notes else lines
    # What is left of the screen goes to the notes first, of which there are few, then to the devices.
    room = SCREEN - 1 - len(lines) - len(tail)
    least = min(len(table), 4) + 1 if table else 0
    if notes and room - least < len(notes) + 2:
        notes = notes[: max(0, room - least - 3)]
        notes = [*notes, "  ... (--verbose)"] if notes else []
    if notes:
        tail += ["", "Notes", *notes]
        room -= len(notes) + 2
    if table:
        if len(table) + 1 > room:
            hidden = len(table) - max(2, room - 2)
            table = [*table[: max(2, room - 2)], f"  ... and {hidden} more (--verbose)"]
        lines += ["", *table]
    return lines + tail


def _about(assessment: Assessment, *, width: int) -> list[str]:
    host = assessment.host
    machine = ", ".join(
        filter(None, (host.name, host.os, host.arch, host.virtualization, host.cloud, host.instance_type))
    )
    lines = wrap(machine or "nothing is known of it", width=width, first="Machine  ")
    report = assessment.kernel
    if report is None:
        kernel = f"{host.kernel_release or 'unknown release'}; its code could not be read"
    else:
        word = _word(report.findings)
        kernel = f"{report.release or host.kernel_release or 'unknown release'}, {word}; read in {report.source}"
    lines += wrap(kernel, width=width, first="Kernel   ")
    open_ones = [finding for finding in (report.findings if report else ()) if finding.status is Status.UNKNOWN]
    for finding in open_ones[:MOST_REASONS]:
        # Its first sentence; all of it is in the evidence.
        why = re.split(r"(?<=\.) (?=[A-Z])", finding.reason, maxsplit=1)[0]
        told = wrap(why, width=width, first="         ")
        lines += told if len(told) <= MOST_OF_WHY else [*told[: MOST_OF_WHY - 1], "         ... (--verbose)"]
    return lines + wrap(_oops(assessment.outcome), width=width, first="Oops     ")


def _oops(outcome: Outcome) -> str:
    if outcome.panic_on_oops is None:
        return "what an Oops would lead to is not known (no panic_on_oops)"
    if not outcome.panic_on_oops:
        return "panic_on_oops=0: it would limp on with a dead worker and its locks held, or hang"
    seconds = outcome.reboot_after_s
    if seconds is None:
        then = "panic"
    elif seconds == 0:
        then = "panic, and it would stay down (panic=0)"
    else:
        then = "panic, and restart at once" if seconds < 0 else f"panic, and restart after {seconds} s"
    dump = {True: "; kdump is loaded", False: "; no kdump", None: ""}[outcome.kdump]
    return f"panic_on_oops=1: {then}{dump}"


def _word(findings: Sequence[Finding]) -> str:
    """What is said of the kernel: of each defect where there are few, else those that it has, and how many not."""
    if len(findings) <= MOST_NAMED:
        return ", ".join(f"{finding.advisory} {finding.status.replace('_', ' ')}" for finding in findings)
    parts = []
    for status in Status:
        names = [finding.advisory for finding in findings if finding.status is status]
        listed = f": {_some(names)}" if status not in SAFE and names else ""
        parts += [f"{len(names)} {status.replace('_', ' ')}{listed}"] if names else []
    return f"of {len(findings)} defects {', '.join(parts)}"


def _some(names: Sequence[str]) -> str:
    left = len(names) - MOST_NAMED
    return ", ".join(names) if left <= 0 else f"{', '.join(names[:MOST_NAMED])} and {left} more"


def _evidence(report: KernelReport | None, *, width: int) -> list[str]:
    if report is None:
        return []
    lines = ["", "Evidence"]
    if report.build_id:
        lines.append(f"  build-id {report.build_id}")
    for finding in report.findings:
        lines += wrap(f"{finding.advisory}: {finding.status}. {finding.reason}", width=width, first="  ")
        for item in finding.evidence:
            lines += wrap(f"{item.detail} [{item.says}]", width=width, first=f"    {item.kind}: ", rest="      ")
        for doubt in finding.doubts:
            lines += wrap(f"{doubt.detail} [{doubt.kind}]", width=width, first="    not seen: ", rest="      ")
        if finding.conflict:
            lines.append("    The evidence disagrees; the strongest kind decides.")
    return lines
