# SPDX-License-Identifier: GPL-2.0-or-later
"""sriov_disable() on a physical function with one virtual function: does it take the lock of whoever removes it?"""

from ejectable.experiment import Bench, Result, calls, ends

__all__ = ["FUNCTION", "experiment"]

FUNCTION = "sriov_disable"


def experiment(bench: Bench) -> Result:
    """Whether the rescan lock is taken again, which pci_stop_and_remove_bus_device_locked() holds already."""
    scene = bench.scene(follow=("sriov_del_vfs",))  # inlined in most builds; the lock is taken in it
    function = scene.new("pci_dev", is_physfn=1, bus=scene.new("pci_bus"))
    enabled = scene.new("pci_sriov", num_VFs=1)
    enabled.self = function
    function.sriov = enabled
    outcome = scene.run(FUNCTION, function)
    locks = calls(outcome, "pci_lock_rescan_remove")
    removes = calls(outcome, "pci_iov_remove_virtfn", times=1)
    return bench.decide(affected=locks, fixed=~locks, control=ends(outcome) & removes)
