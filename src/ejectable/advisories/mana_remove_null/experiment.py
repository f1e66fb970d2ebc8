# SPDX-License-Identifier: GPL-2.0-or-later
"""mana_remove() run twice on one device, as a failed resume and the removal after it do."""

from ejectable.experiment import Bench, Result, calls, ends, reads_null, state

__all__ = ["experiment"]

FUNCTION, RESUME = "mana_remove", "mana_gd_resume"


def experiment(bench: Bench) -> Result:
    """Whether the second mana_remove() reads the context that the first has cleared."""
    if not bench.has(RESUME):
        # Before 635096a86edb "net: mana: Support hibernation and kexec" (v5.16) nothing calls it a second time.
        return bench.not_there(f"the driver has no {RESUME}(): nothing removes one device twice")
    scene = bench.scene()
    vport = scene.new("gdma_dev", gdma_context=scene.new("gdma_context"), driver_data=scene.new("mana_context"))
    first = scene.run(FUNCTION, vport, 0)
    cleared = state(first, "the first removal cleared the device's context", vport.gdma_context == 0)
    second = scene.run(FUNCTION, vport, 0)
    does_nothing = state(second, f"{second.story()}, and called nothing", ends(second).seen and not second.calls)
    return bench.decide(
        affected=reads_null(second), fixed=does_nothing, control=ends(first) & calls(first, "kfree") & cleared
    )
