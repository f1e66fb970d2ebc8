# SPDX-License-Identifier: GPL-2.0-or-later
"""virtblk_freeze() run: are the disk's requests waited for before the device's queues are deleted?"""

from ejectable.advisories.blk_suspend.experiment import Frozen
from ejectable.experiment import Bench, Result

__all__ = ["experiment"]


def experiment(bench: Bench) -> Result:
    """Whether requests may lie in the queues that are deleted."""
    run = Frozen(bench)
    return bench.decide(affected=run.undrained, fixed=run.drained, control=run.control)
