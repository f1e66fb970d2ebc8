# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair in a kernel that runs: pcie_aspm_exit_link_state() frees the link with its downstream function alone.

The same test as cbf937dcadfd (v6.15) adds: for any other function of the device it does nothing. The link belongs to
the port above, and its downstream function is on the same bus.
"""

from ejectable.advisories.live_part import Differs, IsNot, LivePart, Reads, Return, Same

__all__ = ["LIVE"]

PORT = "+pci_dev.bus > +pci_bus.self"
LINK = f"{PORT} > +pci_dev.link_state"
DOWNSTREAM = f"{LINK} > +pcie_link_state.downstream"

LIVE = LivePart(
    advisory="CVE-2024-58093",
    function="pcie_aspm_exit_link_state",
    module="",
    does="the state of a link was kept: its downstream function is still there",
    danger="taking away a PCIe switch whose upstream port has several functions uses freed memory",
    ours=(IsNot(LINK, 0), IsNot(DOWNSTREAM, 0), Differs(DOWNSTREAM, "&")),
    layout=(
        Reads("+pci_dev.dev.bus > +bus_type.name", "pci"),
        Same(f"{LINK} > +pcie_link_state.pdev", PORT),
        Same(f"{DOWNSTREAM} > +pci_dev.bus", "+pci_dev.bus"),
    ),
    defect=(),
    action=Return(0),
    bus="pci",
    device="pci_dev.dev",
)
