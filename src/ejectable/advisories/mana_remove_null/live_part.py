# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair in a kernel that runs: mana_remove() is not run for a device that it has let go of already.

The gdma_dev is the one that a gdma_context holds, and the context is what the PCI device's driver data leads to.
"""

from ejectable.advisories.live_part import Is, LivePart, Reads, Return, Same

__all__ = ["LIVE"]

CONTEXT = "-gdma_context.mana"
DEV = f"{CONTEXT} +gdma_context.dev"

LIVE = LivePart(
    advisory="CVE-2026-53297",
    function="mana_remove",
    module="mana",
    does="a device without a context was left alone, as it is gone already",
    danger="removing a MANA device whose resume failed crashes this kernel",
    ours=(Is("+gdma_dev.driver_data", 0),),
    layout=(
        Reads(f"{DEV} > +device.bus > +bus_type.name", "pci"),
        Same(f"{DEV} > +device.driver_data", f"& {CONTEXT}"),
    ),
    defect=(),
    action=Return(0),
)
