# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `ejectable lab`, as text and as a document."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ejectable.assess.proof import Proof
from ejectable.model import Claim, KernelReport, Run, Status
from ejectable.report.document import Document, join, tag
from ejectable.report.kernel import told
from ejectable.report.text import bullets, clean, columns, paint, wrap

__all__ = ["HEADINGS", "LabDocument", "as_document", "as_text", "cells"]

HEADINGS = ("machine", "device", "mode", "trigger", "panic_on_oops", "result", "boot", "verdict")
_COLOUR = {"survived": "fixed", "oops": "affected", "panic": "affected"}  # others are `unknown`
TRACE_SHOWN = 12  # functions of a trace, in a text


def _result(run: Run) -> str:
    """The result in words, with what it rests on."""
    matched = f" {run.advisory}" if run.advisory else ""
    cycles = f" x{run.cycles}" if run.cycles > 1 else ""
    return f"{run.result}{matched}{cycles}"


def cells(run: Run) -> tuple[str, ...]:
    """A run as a row of the table."""
    trigger = run.trigger + (" under I/O" if run.under_io else "")
    seconds = tuple("-" if value is None else f"{value:.1f} s" for value in (run.boot_s, run.verdict_s))
    return (run.machine, run.device, run.mode, trigger, str(run.panic_on_oops), _result(run), *seconds)


class Skipped(msgspec.Struct, frozen=True):
    """A case that was not run."""

    case: str
    reason: str


class Accelerator(msgspec.Struct, frozen=True):
    """What ran the guests."""

    name: str
    why: str


class Predicted(msgspec.Struct, frozen=True):
    """What `ejectable kernel` says of the same kernel."""

    status: Status
    agrees: bool | None
    reason: str
    kernel: KernelReport | None


class LabDocument(Document, frozen=True, kw_only=True, tag=tag("lab")):
    """`ejectable lab`: what happens when it is really unplugged?"""

    runs: tuple[Run, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    accelerator: Accelerator | None = None
    claims: tuple[Claim, ...] = ()
    prediction: Predicted | None = None
    evidence: Annotated[str | None, Meta(description="The folder of transcripts.")] = None
    notes: tuple[str, ...] = ()


def as_document(answer: Proof) -> LabDocument:
    """The document of `ejectable lab`."""
    prediction = answer.prediction
    kernel = None if prediction is None or prediction.kernel is None else told(prediction.kernel, explain=False)
    return join(
        LabDocument,
        answer,
        status=answer.status,
        summary=answer.summary,
        next_steps=tuple(answer.next_steps),
        skipped=tuple(Skipped(case, reason) for case, reason in answer.skipped),
        accelerator=Accelerator(answer.accelerator, answer.accelerator_why),
        prediction=None if prediction is None else join(Predicted, prediction, kernel=kernel),
    )


def as_text(answer: Proof, *, colour: bool, width: int, quiet: bool) -> list[str]:
    """The table first, then what it means."""
    if quiet:
        return wrap(answer.summary, width=width)
    lines: list[str] = []
    if answer.runs:
        table = columns([HEADINGS, *(cells(run) for run in answer.runs)])
        lines += [paint(table[0], "bold", colour=colour)]
        for run, line in zip(answer.runs, table[1:], strict=True):
            lines.append(
                line.replace(
                    f" {run.result}", " " + paint(run.result, _COLOUR.get(run.result, "unknown"), colour=colour), 1
                )
            )
        lines.append("")
    for number, run in enumerate(answer.runs, 1):
        lines += _told(run, number if len(answer.runs) > 1 else None, width)
    lines += _skipped(answer, width)
    for claim in answer.claims:
        lines += wrap(claim.line, width=width)
    if answer.prediction is not None:
        lines += wrap(answer.prediction.reason, width=width)
    lines += wrap(f"Run under {answer.accelerator.upper()}: {answer.accelerator_why}.", width=width)
    for note in answer.notes:
        lines += wrap(f"Note: {note}.", width=width)
    if answer.evidence:
        lines.append(f"Evidence (console and QMP of each run): {clean(answer.evidence)}")
    if answer.next_steps:
        lines += ["", "Next steps", *bullets(answer.next_steps, width=width, numbered=True)]
    return lines


def _skipped(answer: Proof, width: int) -> list[str]:
    lines: list[str] = []
    for reason, count in answer.reasons:
        lines += wrap(f"Skipped {count} combination{'s' if count > 1 else ''}: {reason}.", width=width)
    return lines


def _told(run: Run, number: int | None, width: int) -> list[str]:
    """What a run came to beyond its row: why it did not survive, and each event of its log."""
    lines: list[str] = []
    if run.result != "survived":
        crash = f" {run.crash}." if run.crash else ""
        which = run.detail[:1].upper() + run.detail[1:] if number is None else f"Run {number}: {run.detail}"
        lines += wrap(f"{which}.{crash}", width=width)
    for event in run.events:
        blame = "tied to the removal" if event.removal else "nothing ties it to the removal"
        told = f"{event.title} (phase {event.phase}, line {event.line} of the console; {blame})"
        if event.title != run.crash:
            lines += wrap(f"Also in its log: {told}.", width=width)
        if event.trace and run.result == "crashed-otherwise":
            lines += wrap(f"Trace, innermost first: {' < '.join(event.trace[:TRACE_SHOWN])}.", width=width)
    return lines
