# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on foreign bytes, done by a child process that has no file, no network and no privilege to lose.

    report = run(lambda: judge(path), into=Report, outside={"open": open_it})

The child is forked, so the work needs no preparation; what it returns comes back through a pipe and is checked against
its type. Whatever it wants to open it asks the parent for, which decides. See docs/confinement.md.
"""

from ejectable.confine.child import ask, confined, data_of
from ejectable.confine.imports import TRY, load
from ejectable.confine.scarce import memory_is_scarce
from ejectable.confine.wire import Fence, Outside
from ejectable.confine.work import Done, run, share, stream

__all__ = [
    "TRY",
    "Done",
    "Fence",
    "Outside",
    "ask",
    "confined",
    "data_of",
    "load",
    "memory_is_scarce",
    "run",
    "share",
    "stream",
]
