# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a machine, from sysfs: those on the virtio bus and how each is driven, and those of other buses."""

import re
from typing import Literal

import msgspec

from ejectable.host.enumeration import coverage, reason
from ejectable.host.other_buses import read_other_devices
from ejectable.host.pci import PCI, PciTopology, read_pci_devices
from ejectable.host.root import Root
from ejectable.host.slots import Slots
from ejectable.model import Device, Doubt, DoubtKind

__all__ = ["Found", "read_devices"]

BUS = "/sys/bus/virtio/devices"
MAX_DEVICES = 4096

# Device ids: include/uapi/linux/virtio_ids.h, and section 5 of the virtio specification 1.3.
KINDS = {
    1: "nic",
    2: "disk",
    3: "console",
    4: "rng",
    5: "balloon",
    7: "rpmsg",
    8: "scsi",
    9: "9p",
    11: "rproc-serial",
    12: "caif",
    13: "memory-balloon",
    16: "gpu",
    17: "clock",
    18: "input",
    19: "vsock",
    20: "crypto",
    21: "signal-dist",
    22: "pstore",
    23: "iommu",
    24: "mem",
    25: "sound",
    26: "fs",
    27: "pmem",
    28: "rpmb",
    29: "wifi-sim",
    32: "scmi",
    34: "i2c",
    40: "bluetooth",
    41: "gpio",
}
# The bus of the parent → the transport that runs there.
TRANSPORTS = {
    "pci": "pci",
    "platform": "mmio",
    "ccw": "ccw",
    "vdpa": "vdpa",
    "remoteproc": "rproc",
    "rpmsg": "rproc",
    "uml": "uml",
}
FEATURES = re.compile(r"[01]{64,512}")  # bit 0 first; 128 of them since v6.17
VERSION_1 = 32  # VIRTIO_F_VERSION_1, include/uapi/linux/virtio_config.h
# PCI device ids from here on exist for modern devices only, and virtio_pci_legacy.c turns them away: virtio 1.3,
# section 4.1.2.
FIRST_MODERN_ID = 0x1040


class Found(msgspec.Struct, frozen=True):
    """The devices of a machine with `unplug` still open, virtio's first; and what was not seen of the list."""

    devices: tuple[Device, ...] | None  # None: no list of any kind could be seen
    doubts: tuple[Doubt, ...]


def read_devices(root: Root, slots: Slots) -> Found:
    """Every device on the virtio bus, then those of other buses that can be taken away.

    A PCI function that virtio-pci drives and whose virtio device does not show is listed too, by its address; of a
    captured tree, each that is below /sys/devices.
    """
    whole = coverage(root)
    doubts = list(whole.doubts)
    names = root.list(BUS)
    topology = PciTopology(root, slots)
    found = [_device(root, name, slots) for name in sorted(names or (), key=_number)[:MAX_DEVICES]]
    if len(names or ()) > MAX_DEVICES:
        doubts.append(Doubt(DoubtKind.BOUND, BUS, f"There are more than {MAX_DEVICES} devices: the rest was not read."))
    found += _hidden(root, {device.address for device in found}, slots)
    seen = {device.name for device in found}
    below = sorted(whole.below.items(), key=lambda item: _number(item[0]))[:MAX_DEVICES]
    found += [_described(root, name, path, slots) for name, path in below if name not in seen]
    found = [_placed(device, root, topology) for device in found]
    found += [*read_pci_devices(topology), *read_other_devices(root)]
    nothing = not found and not root.list("/sys/bus")
    return Found(None if nothing else tuple(found), tuple(doubts))


def _placed(device: Device, root: Root, topology: PciTopology) -> Device:
    """The virtio device with what its PCI function's place says."""
    path = root.resolve(f"{PCI}/{device.address}") if device.transport == "pci" and device.address else None
    if path is None:
        return device
    return msgspec.structs.replace(device, attributes={**device.attributes, **topology.attributes(path)})


def _hidden(root: Root, seen: set[str | None], slots: Slots) -> list[Device]:
    """What virtio-pci drives although the virtio bus does not show it: that bus is hidden, or was not captured."""
    found: list[Device] = []
    for address in (root.list(PCI) or ())[:MAX_DEVICES]:
        if address in seen or root.link(f"{PCI}/{address}/driver") != "virtio-pci":
            continue
        parent = root.resolve(f"{PCI}/{address}") or f"{PCI}/{address}"
        below = [name for name in root.list(parent) or () if re.fullmatch(r"virtio\d{1,9}", name)]
        if below:
            found += [_described(root, name, f"{parent}/{name}", slots) for name in below]
            continue
        number = root.number(f"{parent}/device")
        modern = number is not None and number >= FIRST_MODERN_ID
        found.append(
            Device(
                name=address,
                transport="pci",
                address=address,
                kind=KINDS.get(number - FIRST_MODERN_ID, "unknown") if modern and number else "unknown",
                driver=None,
                nodes=(),
                mode="modern" if modern else "unknown",
                hotpluggable=slots.hotpluggable(parent),
                unplug="unknown",
                reason="virtio-pci drives it, and its virtio device does not show",
                doubts=() if modern else (Doubt(reason(root, parent), parent, f"{address} shows no virtio device."),),
            )
        )
    return found


def _device(root: Root, name: str, slots: Slots) -> Device:
    path = root.resolve(f"{BUS}/{name}") or f"{BUS}/{name}"
    if path == f"{BUS}/{name}":
        path = _below_pci(root, name) or path
    return _described(root, name, path, slots)


def _described(root: Root, name: str, path: str, slots: Slots) -> Device:
    """The device at a resolved path."""
    parent = path.rpartition("/")[0]
    address = parent.rpartition("/")[2] if parent != BUS else None
    transport = _transport(root, parent, address or "")
    driver = root.link(f"{path}/driver")
    mode, why, doubts = _mode(root, path, parent, transport, driver)
    features = root.text(f"{path}/features", 1024) or ""
    return Device(
        name=name,
        transport=transport,
        address=address,
        kind=_kind(root, path),
        driver=driver,
        nodes=_nodes(root, path),
        mode=mode,
        hotpluggable=slots.hotpluggable(parent) if transport == "pci" else None,
        unplug="unknown",
        reason=why,
        doubts=doubts,
        attributes={"features": features} if FEATURES.fullmatch(features) else {},
    )


def _below_pci(root: Root, name: str) -> str | None:
    """Where the device really is, in a tree that was captured without its links."""
    for address in (root.list(PCI) or ())[:MAX_DEVICES]:
        path = root.resolve(f"{PCI}/{address}/{name}")
        if path:
            return path
    return None


def _transport(root: Root, parent: str, address: str) -> str:
    """What carries the device: told by the bus of its parent; by the parent's name where no bus was captured."""
    bus = root.link(f"{parent}/subsystem")
    if bus in TRANSPORTS:
        return TRANSPORTS[bus]
    if re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address):
        return "pci"
    if "virtio-mmio" in address or address.endswith(".virtio_mmio"):
        return "mmio"
    if re.fullmatch(r"[0-9a-f]\.[0-9a-f]\.[0-9a-f]{4}", address):
        return "ccw"
    return "vdpa" if re.fullmatch(r"vdpa\d+", address) else "unknown"


def _mode(
    root: Root, path: str, parent: str, transport: str, driver: str | None
) -> tuple[Literal["legacy", "modern", "unknown"], str, tuple[Doubt, ...]]:
    """How the device is driven, what says so, and what was not seen of it."""
    features = root.text(f"{path}/features", 1024)
    pci_id = root.number(f"{parent}/device") if transport == "pci" else None
    known = bool(FEATURES.fullmatch(features or ""))
    if pci_id is not None and pci_id >= FIRST_MODERN_ID and (features or "")[VERSION_1:][:1] != "1":
        return "modern", f"its PCI device id {pci_id:#06x} exists for modern devices only", ()
    if features is None or not known:
        if features is None:
            kind, why = reason(root, f"{path}/features"), "its features could not be read"
        elif not features:
            # tar takes what stat(2) says for the length of a file, and /proc and /sys do not know theirs.
            kind, why = DoubtKind.CUT_OFF, "its features are an empty file, as tar saves those of /sys"
        else:
            kind, why = DoubtKind.UNPARSED, "its features make no sense"
        return "unknown", why, (Doubt(kind, f"{path}/features", f"{why}."),)
    if features[VERSION_1] == "1":
        return "modern", "feature bit 32 (VIRTIO_F_VERSION_1) is set", ()
    if driver is None and "1" not in features:
        # The bits are negotiated when a driver is bound (virtio_dev_probe, drivers/virtio/virtio.c); before that they
        # are all zero and say nothing.
        why = "no driver has negotiated its features yet"
        return "unknown", why, (Doubt(DoubtKind.CHANGING, f"{path}/features", f"{why}."),)
    return "legacy", "feature bit 32 (VIRTIO_F_VERSION_1) is not set", ()


def _kind(root: Root, path: str) -> str:
    number = root.number(f"{path}/device")
    if number is None:
        match = re.match(r"virtio:d([0-9A-Fa-f]{8})v", root.text(f"{path}/modalias", 256) or "")
        number = int(match[1], 16) if match else None
    if number is None:
        return "unknown"
    return KINDS.get(number, f"virtio-id-{number}")


def _nodes(root: Root, path: str) -> tuple[str, ...]:
    """The names under which users know the device: vdb, eth1, vport1p1, sda."""
    found: list[str] = []
    for folder in ("block", "net", "virtio-ports", "drm", "sound", "tty", "bluetooth", "rtc", "ptp"):
        found += root.list(f"{path}/{folder}") or ()
    # SCSI: hostN/targetN:B:T/N:B:T:L/block/sdX
    for host in _matching(root, path, r"host\d+"):
        for target in _matching(root, f"{path}/{host}", r"target\d+:\d+:\d+"):
            for unit in _matching(root, f"{path}/{host}/{target}", r"\d+:\d+:\d+:\d+"):
                found += root.list(f"{path}/{host}/{target}/{unit}/block") or ()
    return tuple(found)


def _matching(root: Root, path: str, pattern: str) -> tuple[str, ...]:
    return tuple(name for name in root.list(path) or () if re.fullmatch(pattern, name))[:256]


def _number(name: str) -> tuple[int, str]:
    digits = re.search(r"(\d{1,9})$", name)
    return (int(digits[1]) if digits else 0, name)
