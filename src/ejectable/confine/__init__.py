# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on foreign bytes, done by a child process that has no file, no network and no privilege to lose.

    report = run(lambda: judge(path), into=Report, outside={"open": open_it})

The child is forked, so the work needs no preparation; what it returns comes back through a pipe and is checked against
its type. Whatever it wants to open it asks the parent for, which decides. See docs/confinement.md.
"""

from ejectable.confine.child import Fence, Outside, ask, confined, run
from ejectable.confine.imports import load
from ejectable.confine.scarce import memory_is_scarce

__all__ = ["Fence", "Outside", "ask", "confined", "load", "memory_is_scarce", "run"]
