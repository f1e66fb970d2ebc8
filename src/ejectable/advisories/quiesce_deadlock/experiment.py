# SPDX-License-Identifier: GPL-2.0-or-later
"""blk_mq_quiesce_tagset() on an empty set of tags: does it take the lock that a removal holds while it waits?"""

from ejectable.experiment import Bench, Result, calls, ends

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "blk_mq_quiesce_tagset"
GRACE = ("synchronize_rcu", "synchronize_srcu", "__synchronize_srcu")  # every version waits for the dispatchers


def experiment(bench: Bench) -> Result:
    """Whether the list of queues is walked under tag_list_lock, or under RCU."""
    scene = bench.scene()
    tags = scene.new("blk_mq_tag_set")
    tags.sub("tag_list").init()
    outcome = scene.run(FUNCTION, tags)
    locks = calls(outcome, "mutex_lock", "mutex_lock_nested", "__mutex_lock", first=tags.sub("tag_list_lock"))
    return bench.decide(affected=locks, fixed=~locks, control=ends(outcome) & calls(outcome, *GRACE))
