# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines, each below a root of its own, read and judged; one that cannot be read does not keep others from it."""

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ejectable import host
from ejectable.assess.kernels import DEBUG, Unreadable
from ejectable.assess.machine import assess
from ejectable.assess.running_kernel import find
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import EjectableError
from ejectable.intake.limits import Limits
from ejectable.model import EXIT_AFFECTED, EXIT_UNKNOWN, Assessment, Status, exit_code, worst

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["Checked", "check_root", "check_roots", "code_of", "status_of"]


class Checked(msgspec.Struct, frozen=True):
    """What came of one root: an assessment, or why there is none."""

    root: str
    assessment: Assessment | None
    error: Unreadable | None = None


def check_root(root: host.Root, advisories: Mapping[str, "Advisory"], limits: Limits, verdicts: Verdicts) -> Assessment:
    """What the files below one root add up to; raises an `EjectableError` where it cannot be read."""
    facts = host.read(root)
    return assess(facts, find(root, facts, advisories, limits, verdicts), advisories)


def check_roots(
    roots: Sequence[str],
    advisories: Mapping[str, "Advisory"],
    limits: Limits,
    verdicts: Verdicts,
    *,
    done: Callable[[str], None] = lambda _: None,
) -> Iterator[Checked]:
    """Each root in turn, judged; an error becomes part of the answer. `done` gets each root after it was judged."""
    for root in roots:
        try:
            yield Checked(root, check_root(host.Root(root), advisories, limits, verdicts))
        except EjectableError as error:
            if os.environ.get(DEBUG):
                traceback.print_exc()
            yield Checked(root, None, Unreadable(root, error.message, error.exit_code, error.hint))
        done(root)


def status_of(checked: Sequence[Checked]) -> Status:
    """What all of them add up to: the worst, and `unknown` for a root that could not be read."""
    return worst(one.assessment.status if one.assessment else Status.UNKNOWN for one in checked)


def code_of(checked: Sequence[Checked]) -> int:
    """The exit code: the worst word wins, then that of the first root that could not be read, then 0."""
    words = [one.assessment.status for one in checked if one.assessment]
    errors = [one.error.exit_code for one in checked if one.error]
    code = exit_code(words, damaged=bool(errors))
    return errors[0] if errors and code not in (EXIT_AFFECTED, EXIT_UNKNOWN) else code
