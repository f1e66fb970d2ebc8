# SPDX-License-Identifier: GPL-2.0-or-later
"""pci_create_slot() for a new slot: does the slot keep the bus that it points to?"""

from ejectable.experiment import Bench, Result, calls, ends

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "pci_create_slot"
KEEPS = ("pci_bus_get", "get_device")
MAKES = ("kobject_init_and_add", "make_slot_name", "kmalloc_trace", "__kmalloc_cache_noprof", "kmem_cache_alloc_trace")


def experiment(bench: Bench) -> Result:
    """Whether a reference on the bus is taken."""
    scene = bench.scene()
    bus = scene.new("pci_bus")
    for name in ("devices", "slots"):
        bus.sub(name).init()
    outcome = scene.run(FUNCTION, bus, 3, scene.text("7"), 0)
    keeps = calls(outcome, "pci_bus_get", first=bus) | calls(outcome, "get_device", first=bus.sub("dev"))
    return bench.decide(affected=~keeps, fixed=keeps, control=ends(outcome) & calls(outcome, *MAKES))
