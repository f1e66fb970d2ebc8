# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a virtio PCI device that is driven as legacy could be driven as modern: told by its PCI capabilities.

A device with the capabilities of virtio 1.0 (section 4.1.4: vendor-specific ones, of which the common configuration
is one) and an id of 0x1000 to 0x103f is transitional. Linux drives it as modern unless force_legacy is set.
"""

from ejectable.host import Root

__all__ = ["can_be_modern"]

CONFIG = 256  # bytes of PCI configuration space; what is beyond (PCI Express) holds no virtio capability
STATUS, HAS_LIST, FIRST = 0x06, 0x10, 0x34  # include/uapi/linux/pci_regs.h
VENDOR_SPECIFIC, COMMON_CONFIG = 0x09, 1
HEADER = 64  # what a user who is not root may read of it: drivers/pci/pci-sysfs.c, pci_read_config()


def can_be_modern(root: Root, address: str) -> bool | None:
    """For the PCI function at `address` ("0000:00:06.0"); `None` where its configuration does not show it all."""
    config = root.read(f"/sys/bus/pci/devices/{address}/config", CONFIG)
    if config is None or len(config) < HEADER:
        return None
    if not config[STATUS] & HAS_LIST:
        return False
    at, seen = config[FIRST] & ~3, 0
    while at and seen < 48:  # as many as fit: each takes four bytes behind the header
        if at + 4 > len(config):
            return None
        if config[at] == VENDOR_SPECIFIC and config[at + 3] == COMMON_CONFIG:
            return True
        at, seen = config[at + 1] & ~3, seen + 1
    return False
