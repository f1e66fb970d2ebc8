# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of SCSI, Xen and Hyper-V from sysfs: disks and network cards that go away without being PCI functions."""

import re

from ejectable.host.root import Root
from ejectable.model import Device

__all__ = ["OTHER_BUSES", "read_other_devices"]

MAX_DEVICES = 4096
DISK = "0"  # TYPE_DISK, include/scsi/scsi_proto.h
# Bus → what its devices are called. SCSI: host:channel:target:unit; Xen: type-number; Hyper-V: the instance's UUID.
OTHER_BUSES = {
    "scsi": re.compile(r"\d{1,5}:\d{1,5}:\d{1,5}:\d{1,20}"),
    "xen": re.compile(r"(?:vif|vbd)-\d{1,10}"),
    "vmbus": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}
KINDS = {"vbd": "disk", "vif": "nic", "hv_netvsc": "nic", "hv_storvsc": "scsi"}


def read_other_devices(root: Root) -> tuple[Device, ...]:
    """SCSI disks, Xen's disks and network cards, and what Hyper-V's bus carries."""
    return tuple(
        device
        for bus, name in OTHER_BUSES.items()
        for entry in (root.list(f"/sys/bus/{bus}/devices") or ())[:MAX_DEVICES]
        if name.fullmatch(entry) and (device := _device(root, bus, entry)) is not None
    )


def _device(root: Root, bus: str, name: str) -> Device | None:
    path = root.resolve(f"/sys/bus/{bus}/devices/{name}")
    if path is None or (bus == "scsi" and root.text(f"{path}/type", 8) != DISK):
        return None
    driver = root.link(f"{path}/driver")
    nodes = tuple(node for folder in ("block", "net") for node in root.list(f"{path}/{folder}") or ())
    attributes = {}
    if bus == "scsi":
        removable = root.text(f"{path}/block/{nodes[0]}/removable", 8) if nodes else None
        attributes = {} if removable is None else {"removable": removable}
    kind = "disk" if bus == "scsi" else KINDS.get(driver or name.partition("-")[0], "unknown")
    return Device(
        name=name,
        transport=bus,
        address=name,
        kind=kind,
        driver=driver,
        nodes=nodes,
        mode="unknown",
        hotpluggable=None,
        unplug="unknown",
        reason="",
        bus=bus,
        attributes=attributes,
    )
