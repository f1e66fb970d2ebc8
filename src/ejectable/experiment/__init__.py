# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench: what an advisory's experiment is made of. It knows the machine, and no subsystem of the kernel.

    hole, full = (lay_out_and_run(bench.scene(), names) for names in (["a", None, "c"], ["a", "b", "c"]))
    deleted = calls(full, "del_vq", times=3)
    return bench.decide(affected=reads_null(hole, at=8), fixed=calls(hole, "del_vq", times=2), control=deleted)

A scene is a machine of its own with objects in it; each run has a fresh one, so that nothing is left of the run before.
What a run showed is an observation: whether it was seen, and a sentence that says so.
"""

from ejectable.experiment.bench import Bench, Result
from ejectable.experiment.locks import held, locked_twice, order_of, waits_under
from ejectable.experiment.memory import freed_inside, freed_twice, touched_after_free
from ejectable.experiment.observations import (
    Observation,
    calls,
    calls_before,
    ends,
    reads_null,
    spins,
    state,
    traps,
    warns,
    wild_access,
)
from ejectable.experiment.scene import Scene, answers

__all__ = [
    "Bench",
    "Observation",
    "Result",
    "Scene",
    "answers",
    "calls",
    "calls_before",
    "ends",
    "freed_inside",
    "freed_twice",
    "held",
    "locked_twice",
    "order_of",
    "reads_null",
    "spins",
    "state",
    "touched_after_free",
    "traps",
    "waits_under",
    "warns",
    "wild_access",
]
