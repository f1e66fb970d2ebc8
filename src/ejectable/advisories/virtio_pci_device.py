# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells a virtio device of virtio-pci's, whatever is repaired of it: conditions for `live_part`.

It is a virtio_pci_device of the layout that is known if its del_vqs() is vp_del_vqs(), its pci_dev is its parent in the
device tree, the parent's driver data leads back to it, and its members hold what virtio_pci_legacy.c and
virtio_pci_modern.c both put there.
"""

from ejectable.advisories.live_part import IsNot, Reads, Same, Starts

__all__ = ["DEVICE", "LAYOUT", "OURS"]

DEVICE = "-virtio_pci_device.vdev"  # from the argument, a virtio_device, to what it is in
PARENT = "+virtio_device.dev.parent"
OURS = (
    Reads(f"{PARENT} > +device.bus > +bus_type.name", "pci"),
    Starts("+virtio_device.config > +virtio_config_ops.del_vqs", "vp_del_vqs"),
    IsNot(f"{PARENT} > +device.driver_data", 0),
)
LAYOUT = (
    Same(f"{PARENT} > +device.driver_data", f"& {DEVICE}"),
    Same(f"{DEVICE} +virtio_pci_device.pci_dev", f"& {PARENT} > -pci_dev.dev"),
    Starts(f"{DEVICE} +virtio_pci_device.setup_vq", "setup_vq"),
    Starts(f"{DEVICE} +virtio_pci_device.del_vq", "del_vq"),
    Starts(f"{DEVICE} +virtio_pci_device.config_vector", "vp_config_vector"),
)
