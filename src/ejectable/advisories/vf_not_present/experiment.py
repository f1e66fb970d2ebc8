# SPDX-License-Identifier: GPL-2.0-or-later
"""pci_device_is_present() on a virtual function: whose configuration space is read?"""

from ejectable.experiment import Bench, Result, calls, ends

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "pci_device_is_present"
READS = ("pci_bus_read_dev_vendor_id", "pci_bus_generic_read_dev_vendor_id")


def experiment(bench: Bench) -> Result:
    """Whether the vendor id is read of the virtual function, which always reads ffff, or of the physical one."""
    scene = bench.scene(follow=("pci_physfn",))
    own, parent = scene.new("pci_bus"), scene.new("pci_bus")
    physical = scene.new("pci_dev", bus=parent)
    virtual = scene.new("pci_dev", bus=own, is_virtfn=1, physfn=physical)
    outcome = scene.run(FUNCTION, virtual)
    plain = scene.run(FUNCTION, physical)
    return bench.decide(
        affected=calls(outcome, *READS, first=own),
        fixed=calls(outcome, *READS, first=parent),
        control=ends(outcome) & ends(plain) & calls(plain, *READS, first=parent),
    )
