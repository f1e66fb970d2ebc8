# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of virtio devices: QEMU's device model, the kernel's driver and modules, properties to set."""

import msgspec

__all__ = ["KINDS", "Kind"]


class Kind(msgspec.Struct, frozen=True):
    """One kind of device. Names are QEMU's (`-device help`) and the kernel's (file names of modules)."""

    name: str
    model: str  # QEMU's device model
    driver: str  # the kernel's virtio driver, as in /sys/bus/virtio/drivers
    module: str  # the module that has it
    device_id: int  # virtio specification, 5 "Device Types"
    extra_modules: tuple[str, ...] = ()  # needed to use it, though nothing depends on them
    properties: tuple[tuple[str, str | int | bool], ...] = ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "disk",
            "virtio-blk-pci",
            "virtio_blk",
            "virtio_blk",
            2,
        ),
        # No option ROM: nothing boots from this card, and loading one takes time.
        Kind(
            "nic",
            "virtio-net-pci",
            "virtio_net",
            "virtio_net",
            1,
            properties=(("romfile", ""), ("mac", "52:54:00:65:6a:01")),
        ),
        Kind("scsi", "virtio-scsi-pci", "virtio_scsi", "virtio_scsi", 8, extra_modules=("sd_mod",)),
        Kind("rng", "virtio-rng-pci", "virtio_rng", "virtio_rng", 4),
        Kind("balloon", "virtio-balloon-pci", "virtio_balloon", "virtio_balloon", 5),
        Kind("console", "virtio-serial-pci", "virtio_console", "virtio_console", 3),
        Kind(
            "vsock",
            "vhost-vsock-pci",
            "vmw_vsock_virtio_transport",
            "vmw_vsock_virtio_transport",
            19,
            properties=(("guest-cid", 4242),),
        ),
    )
}
