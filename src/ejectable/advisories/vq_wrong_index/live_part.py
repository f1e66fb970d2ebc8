# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair in a kernel that runs: each queue's record is put where vp_del_vqs() looks for it.

vp_find_vqs() puts the record of a queue at the caller's position, which counts queues without a name; vp_del_vqs()
looks it up by the queue's index, which does not (89a1c435aec2 in v6.11, f7d380fb525c in v7.2). A device with an admin
queue, whose record is in no table, is left alone.
"""

from ejectable.advisories.live_part import Is, IsNot, LivePart, Order
from ejectable.advisories.virtio_pci_device import DEVICE, LAYOUT, OURS

__all__ = ["LIVE"]

TABLE = f"{DEVICE} +virtio_pci_device.vqs"

LIVE = LivePart(
    advisory="CVE-2026-64457",
    function="vp_del_vqs",
    module="virtio_pci",
    does="a device lets go of its queues: the records of some were put where they are looked for",
    danger="removing or suspending a balloon with free page reporting crashes this kernel",
    ours=(*OURS, Is(f"{DEVICE} +virtio_pci_device.admin_vq.info", 0), IsNot(TABLE, 0)),
    layout=LAYOUT,
    defect=(),
    action=Order("+virtio_device.vqs", "virtqueue.list", "virtqueue.index", TABLE, "virtio_pci_vq_info.vq"),
    bus="virtio",
    device="virtio_device.dev",
)
