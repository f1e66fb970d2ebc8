# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on foreign bytes, done by a child process that has no file, no network and no privilege to lose.

    report = run(lambda: judge(path), into=Report, open_file=open_regular)

The child is forked, so the work needs no preparation; what it returns comes back through a pipe and is checked against
its type. Whatever the work opens by `open_outside` is opened by the parent, which decides. See docs/confinement.md.
"""

from ejectable.confine.child import Fence, confined, open_outside, run

__all__ = ["Fence", "confined", "open_outside", "run"]
