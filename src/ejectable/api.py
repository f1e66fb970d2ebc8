# SPDX-License-Identifier: GPL-2.0-or-later
"""The public functions: the questions of the command line, answered as values.

An answer is the typed document that the command prints as JSON (docs/json.md), with the same names as attributes;
`encode` makes the JSON of it. What could not be read is in its `errors`, never an exception: only a question that
cannot be asked (an advisory that does not exist) raises an `EjectableError`.
"""

import os
from collections.abc import Sequence

from ejectable.advisories import choose
from ejectable.assess import crashes
from ejectable.assess.checked import check_roots
from ejectable.assess.kernels import judge_paths
from ejectable.assess.logs import sources
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import EjectableError
from ejectable.intake import DEFAULT_LIMITS, Limits
from ejectable.report import check as check_report
from ejectable.report import crash as crash_report
from ejectable.report import document
from ejectable.report import kernel as kernel_report

__all__ = ["check_machine", "judge_kernels", "read_logs"]

PathName = str | os.PathLike[str]


def judge_kernels(
    *paths: PathName, advisories: Sequence[str] = (), jobs: int = 1, limits: Limits = DEFAULT_LIMITS
) -> kernel_report.KernelDocument:
    """What `ejectable kernel` says of the kernels in `paths`: images, modules, packages, folders, source trees.

    `advisories` are ids or the beginnings of titles; none means all. With `jobs` above 1 several are read at once.
    """
    names = [os.fspath(path) for path in paths]
    judged = list(judge_paths(names, tuple(choose(advisories)), limits, jobs=jobs, done=lambda _: None))
    return kernel_report.as_document(judged, explain=True)


def check_machine(
    *roots: PathName, advisories: Sequence[str] = (), cache: bool = True, limits: Limits = DEFAULT_LIMITS
) -> check_report.CheckDocument:
    """What `ejectable check` says of the machines whose files are below `roots`; of this one where none is given.

    `cache` allows verdicts that were kept, and keeps new ones.
    """
    names = [os.fspath(root) for root in roots] or ["/"]
    checked = list(check_roots(names, choose(advisories), limits, Verdicts(enabled=cache)))
    return check_report.as_document(checked, explain=True)


def read_logs(
    *paths: PathName, advisories: Sequence[str] = (), jobs: int = 1, limits: Limits = DEFAULT_LIMITS
) -> crash_report.CrashDocument:
    """What `ejectable crash` says of the logs in `paths`: files, folders, archives; "-" is standard input."""
    chosen = choose(advisories)
    try:
        found = sources([os.fspath(path) for path in paths])
    except EjectableError as error:
        return document.failed(crash_report.CrashDocument, error)
    return crash_report.as_document(crashes.read_all(found, chosen, jobs=jobs, limits=limits))
