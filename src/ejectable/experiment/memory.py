# SPDX-License-Identifier: GPL-2.0-or-later
"""Freed memory: what is touched after it was freed, freed twice, or freed in its middle.

A scene unmaps what is freed, so that any later touch ends the run; here the ends are told apart.
"""

from ejectable.experiment.observations import Observation
from ejectable.experiment.scene import Scene
from ejectable.kernel.machine import Outcome

__all__ = ["freed_inside", "freed_twice", "touched_after_free"]


def touched_after_free(scene: Scene, outcome: Outcome) -> Observation:
    """An object was read, written or called after it had been freed."""
    fault = outcome.fault
    grave = scene.grave_of(fault.address) if fault is not None else None
    if fault is None or grave is None:
        return Observation(False, outcome.story(), (outcome,))
    words = f"{fault.at} touched {grave.what} {fault.address - grave.start:#x} bytes in, after {grave.by} had freed it"
    return Observation(True, words, (outcome,))


def freed_twice(scene: Scene, outcome: Outcome) -> Observation:
    """An object was freed that had been freed before."""
    again = next((each for each in scene.bad_frees if each.again), None)
    words = f"{again.by} freed {again.what} a second time" if again else "nothing was freed twice"
    return Observation(again is not None, words, (outcome,))


def freed_inside(scene: Scene, outcome: Outcome) -> Observation:
    """An address was freed that is inside of an object and not its beginning."""
    inside = next((each for each in scene.bad_frees if not each.again), None)
    words = f"{inside.by} freed an address inside of {inside.what}" if inside else "nothing was freed in its middle"
    return Observation(inside is not None, words, (outcome,))
