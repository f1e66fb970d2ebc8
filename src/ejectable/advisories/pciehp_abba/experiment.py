# SPDX-License-Identifier: GPL-2.0-or-later
"""pciehp_unconfigure_device() with one device in the slot: which locks are held while its driver is unbound?"""

from ejectable.experiment import Bench, Result, calls, ends, state

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "pciehp_unconfigure_device"
REMOVES = "pci_stop_and_remove_bus_device"


def experiment(bench: Bench) -> Result:
    """Whether the slot's reset lock is dropped around the removal, which takes the device's own lock."""
    scene = bench.scene()
    # Other drivers have a struct controller too.
    slot = scene.new("controller", having=("reset_lock", "pcie"))
    bus, child = scene.new("pci_bus"), scene.new("pci_dev")
    slot.pcie = scene.new("pcie_device", port=scene.new("pci_dev", subordinate=bus))
    bus.sub("devices").init()
    bus.sub("devices").append(child.sub("bus_list"))
    outcome = scene.run(FUNCTION, slot, 1)
    lock = slot.sub("reset_lock").__index__()
    # Whoever calls it holds the lock for reading (pciehp_ist()): what counts is whether it is let go in between.
    order = [call.name for call in outcome.calls if call.name == REMOVES or call.arguments[0] == lock]
    dropped = order[:3] in (["up_read", REMOVES, "down_read"], ["up_read", REMOVES, "down_read_nested"])
    return bench.decide(
        affected=state(outcome, "the reset lock stays held while the driver is unbound", order == [REMOVES]),
        fixed=state(outcome, "the reset lock is let go before the driver is unbound, and taken again after", dropped),
        control=ends(outcome) & calls(outcome, REMOVES, times=1),
    )
