# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `ejectable fix`: the plan, best remedy first, or what was done; as text or as a document."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from ejectable.model import Applied, Remedy, Status
from ejectable.report.document import Document, join, tag
from ejectable.report.text import MARKS, bullets, clean, paint, wrap

__all__ = ["Answer", "FixDocument", "as_document", "as_text"]

WORDS = {"done": "DONE", "recommended": "RECOMMENDED", "possible": "possible", "impossible": "not possible"}
COLOURS = {"done": "fixed", "recommended": "bold", "possible": "safe", "impossible": "dim"}


class Answer(msgspec.Struct, frozen=True):
    """What there is to show. `summary` is the assessment's: what the plan is against."""

    status: Status
    summary: str
    plan: tuple[Remedy, ...]
    applied: Applied | None = None
    notes: tuple[str, ...] = ()
    one: bool = False  # one remedy was asked for by name
    undone: bool = False  # `applied` is a remedy that was taken back
    needed: bool = True  # anything has to be done

    @property
    def headline(self) -> str:
        """The answer in one line."""
        if self.applied is not None and self.undone:
            how = "is taken back" if self.applied.verified else "is taken back, but not all of it"
            return f"`{self.applied.remedy}` {how}. {self.applied.why}"
        if self.applied is not None:
            how = "is done and verified" if self.applied.verified else "is done, but not verified"
            reboot = "; it takes effect with the next boot" if self.applied.reboot else ""
            return f"`{self.applied.remedy}` {how}{reboot}. {self.applied.why}"
        best = next((line for line in self.plan if line.state == "recommended"), None)
        if best is not None:
            return f"{self.summary} Best remedy: {best.remedy}."
        if not self.needed and not self.one:
            return f"{self.summary} Nothing has to be done."
        if self.one or self.status not in (Status.AFFECTED, Status.UNKNOWN):
            return self.summary
        return f"{self.summary} No remedy is possible here; see why below."

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What a person does next."""
        if self.applied is not None:
            reboot = ("Reboot, then run `ejectable check`.",) if self.applied.reboot else ()
            undo = (f"To take it back: `{self.applied.undo}`",) if self.applied.undo else ()
            return (*reboot, *self.applied.next_steps, *undo)
        return tuple(
            f"{line.remedy}: {line.commands[0]}" if line.commands else f"{line.remedy}: {line.why}"
            for line in self.plan
            if line.state == "recommended"
        )


class FixDocument(Document, frozen=True, kw_only=True, tag=tag("fix")):
    """`ejectable fix`: what do I do about it, and is it done?"""

    plan: Annotated[tuple[Remedy, ...], Meta(description="The best first; empty after --apply and --undo.")] = ()
    applied: Annotated[Applied | None, Meta(description="What --apply or --undo did; null for a plan.")] = None
    notes: Annotated[tuple[str, ...], Meta(description="What else is worth knowing.")] = ()


def as_document(answer: Answer) -> FixDocument:
    """The document of `ejectable fix`."""
    return join(FixDocument, answer, summary=answer.headline, next_steps=answer.next_steps)


def as_text(answer: Answer, *, colour: bool, width: int, verbose: bool, quiet: bool) -> list[str]:
    """The answer in the first line, then the remedies one by one; those that are not possible last and short."""
    lines = _headline(answer, colour=colour, width=width)
    if quiet:
        return lines
    if answer.applied is not None:
        lines += _applied(answer.applied, width=width)
    shown = answer.plan
    if not answer.needed and not answer.one and not verbose:
        # Seven reasons why no remedy is possible tell nobody anything where none is wanted.
        shown = tuple(line for line in answer.plan if line.state != "impossible")
    for line in shown:
        lines += _remedy(line, colour=colour, width=width, verbose=verbose or answer.one)
    if answer.applied is not None and answer.next_steps:
        lines += ["", "Next steps", *bullets(answer.next_steps, width=width, numbered=True)]
    if answer.notes:
        lines += ["", "Notes", *bullets(answer.notes, width=width)]
    return lines


def _headline(answer: Answer, *, colour: bool, width: int) -> list[str]:
    if answer.applied is not None:
        return wrap(answer.headline, width=width)
    mark = MARKS[answer.status]
    first, *rest = wrap(f"{mark}  {answer.headline}", width=width, rest="  ")
    return [paint(mark, answer.status, colour=colour) + first.removeprefix(mark), *rest]


def _applied(applied: Applied, *, width: int) -> list[str]:
    lines = ["", *(bullets(applied.changes, width=width) or ["  Nothing had to be changed."])]
    if applied.diff:
        lines += ["", *(clean(line) for line in applied.diff)]
    return lines


def _remedy(line: Remedy, *, colour: bool, width: int, verbose: bool) -> list[str]:
    word = WORDS[line.state]
    head = f"{line.remedy}  {word}" + (", verified" if line.verified and line.state != "impossible" else "")
    lines = ["", paint(head, COLOURS[line.state], colour=colour)]
    lines += wrap(line.why, width=width, first="  ")
    if line.cost and line.state in ("recommended", "possible"):
        lines += wrap(f"Cost: {line.cost}.", width=width, first="  ")
    if line.state != "done" and (line.state != "impossible" or verbose):
        lines += _commands(line.commands)
    if verbose:
        lines += bullets(line.details, width=width)
    if line.diff:
        lines += ["", *(clean(one) for one in line.diff)]
    return lines


def _commands(commands: Sequence[str]) -> list[str]:
    # Never wrapped: they are there to be pasted.
    return [f"    {clean(part)}" for command in commands for part in command.splitlines()]
