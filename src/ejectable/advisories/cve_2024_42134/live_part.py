# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair in a kernel that runs: vp_del_vqs() finds a function in the pointer that it calls."""

from ejectable.advisories.live_part import Fill, Is, LivePart, Starts
from ejectable.advisories.virtio_pci_device import DEVICE, LAYOUT, OURS

__all__ = ["LIVE"]

IS_AVQ = f"{DEVICE} +virtio_pci_device.is_avq"
LEGACY = 1 << 32  # VIRTIO_F_VERSION_1, which no legacy device has

LIVE = LivePart(
    advisory="CVE-2024-42134",
    function="vp_del_vqs",
    module="virtio_pci",
    does="a legacy device lets go of its queues: the empty pointer was filled",
    danger="unplugging a legacy virtio device crashes this kernel",
    ours=OURS,
    layout=(*LAYOUT, Starts(IS_AVQ, "vp_is_avq", or_empty=True)),
    defect=(Is(IS_AVQ, 0),),
    # Negotiated by now, or not yet: a modern device has its function in either case, a legacy one never does.
    sure=(Is("+virtio_device.features", 0, mask=LEGACY),),
    action=Fill(IS_AVQ, "bool", "struct virtio_device *vdev, unsigned int index", answer=0),
    bus="virtio",
    device="virtio_device.dev",
    headers=("linux/virtio.h",),
)
