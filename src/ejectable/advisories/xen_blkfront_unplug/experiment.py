# SPDX-License-Identifier: GPL-2.0-or-later
"""blkif_free_ring() on a ring with an interrupt: is the handler gone before what it uses is freed?"""

from ejectable.experiment import Bench, Result, calls, ends, state

__all__ = ["FUNCTIONS", "experiment"]

FUNCTIONS = ("blkif_free_ring", "blkif_free")  # the second one where the first was inlined
INTERRUPT = 33
ROOM = 1 << 18  # the ring's shadow stands in the object itself
FREES = ("kvfree", "kfree", "xenbus_teardown_ring", "gnttab_end_foreign_access", "__free_pages", "vfree")


def experiment(bench: Bench) -> Result:
    """Which comes first: the end of the interrupt handler, or the first free."""
    function = next((name for name in FUNCTIONS if bench.has(name)), FUNCTIONS[0])
    scene = bench.scene()
    disk, ring = scene.new("blkfront_info"), scene.at("blkfront_ring_info", scene.alloc(ROOM))
    ring.set(dev_info=disk, irq=INTERRUPT)
    for name in ("indirect_pages", "grants"):
        ring.sub(name).init()
    disk.set(rinfo=ring, nr_rings=1, rinfo_size=scene.size("blkfront_ring_info"), nr_ring_pages=1)
    outcome = scene.run(function, ring if function == FUNCTIONS[0] else disk, 0)
    names = [call.name for call in outcome.calls if call.name in FREES or call.name == "unbind_from_irqhandler"]
    first = bool(names) and names[0] == "unbind_from_irqhandler"
    return bench.decide(
        affected=state(outcome, "the ring is freed while its interrupt handler may still run", not first),
        fixed=state(outcome, "the interrupt handler is gone before anything of the ring is freed", first),
        control=ends(outcome) & calls(outcome, "unbind_from_irqhandler", times=1) & calls(outcome, *FREES),
    )
