# SPDX-License-Identifier: GPL-2.0-or-later
"""pcie_aspm_exit_link_state() on each of two functions at the end of one PCIe link."""

from ejectable.experiment import Bench, Result, ends, state
from ejectable.kernel.machine import Outcome

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "pcie_aspm_exit_link_state"


def experiment(bench: Bench) -> Result:
    """Whether the state of the link is freed with the second function, while the first still points to it."""
    second, freed_early = _leave(bench, leaving=1, others=True)
    _, freed_with_first = _leave(bench, leaving=0, others=True)
    alone, freed_at_last = _leave(bench, leaving=0, others=False)
    early = state(second, "the link's state was freed when function 1 went, with function 0 still there", freed_early)
    # Before 456d8aa37d0f (v6.5) it was kept until the bus was empty; since cbf937dcadfd (v6.15) function 0 decides.
    when = "when function 0 went" if freed_with_first else "when the last function went"
    late = state(second, f"the link's state was freed {when}, and not before", not freed_early)
    gone = state(alone, "the link's state was freed with its last function", freed_at_last)
    return bench.decide(affected=early, fixed=late, control=ends(second) & ends(alone) & gone)


def _leave(bench: Bench, *, leaving: int, others: bool) -> tuple[Outcome, bool]:
    """The run for function `leaving`, and whether the link's state was freed; with `others` both stand on the bus."""
    scene = bench.scene(free=True)
    bus, port = scene.new("pci_bus"), scene.new("pci_dev")
    bus.self = port
    bus.sub("devices").init()
    port.subordinate = bus
    functions = [scene.new("pci_dev", bus=bus, devfn=number) for number in (0, 1)]
    if others:  # the last one that leaves may be off its bus already, by version (pci_destroy_dev())
        for function in functions:
            bus.sub("devices").append(function.sub("bus_list"))
    link = scene.new("pcie_link_state", pdev=port, downstream=functions[0])
    link.root = link
    link.sub("sibling").init()
    port.link_state = link
    outcome = scene.run(FUNCTION, functions[leaving])
    return outcome, scene.grave_of(link.__index__()) is not None
