# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI functions from sysfs: what drives them, what they carry, and what their place in the topology says.

Attributes have the names of sysfs where it has one: `sriov_numvfs`. Others are told from links and neighbours, and are
"1" where they hold: `virtfn` (a virtual function, which has a link `physfn`), `pciehp` (its slot is pciehp's),
`slots_below` (a hotplug slot hangs below a bridge that can itself be unplugged).
"""

import re
from collections.abc import Sequence

from ejectable.host.root import Root
from ejectable.host.slots import Slots
from ejectable.model import Device

__all__ = ["PCI", "PCI_ADDRESS", "PciTopology", "read_pci_devices"]

PCI = "/sys/bus/pci/devices"
PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
PORT_SERVICES = "/sys/bus/pci_express/devices"  # 0000:00:1c.0:pcie004, drivers/pci/pcie/portdrv.c
MAX_DEVICES = 4096
NAMESPACE = re.compile(r"nvme(\d{1,5})(?:c\d{1,5})?n(\d{1,5})")
# Class codes, by their first bytes (PCI Code and ID Assignment Specification 1.15).
KINDS = {"0108": "nvme", "01": "disk-controller", "02": "nic", "03": "gpu", "0604": "bridge"}


class PciTopology:
    """What the places of PCI functions say: which ports pciehp looks after, which functions share a device."""

    def __init__(self, root: Root, slots: Slots) -> None:
        self.root = root
        self.slots = slots
        self.addresses = tuple(name for name in root.list(PCI) or () if PCI_ADDRESS.fullmatch(name))[:MAX_DEVICES]
        services = (root.list(PORT_SERVICES) or ())[:MAX_DEVICES]
        self._pciehp = {
            name.rpartition(":")[0] for name in services if root.link(f"{PORT_SERVICES}/{name}/driver") == "pciehp"
        }

    def attributes(self, path: str) -> dict[str, str]:
        """What is known of the function at this resolved path, beside its driver and nodes."""
        found: dict[str, str] = {}
        if self.root.link(f"{path}/physfn") is not None:
            found["virtfn"] = "1"
        enabled = self.root.text(f"{path}/sriov_numvfs", 16)
        if enabled is not None:
            found["sriov_numvfs"] = enabled
        if path.rpartition("/")[0].rpartition("/")[2] in self._pciehp:
            found["pciehp"] = "1"
        return found

    def functions(self, address: str) -> int:
        """How many functions the device of this function has."""
        device = address.rpartition(".")[0]
        return sum(one.rpartition(".")[0] == device for one in self.addresses)

    def slots_below(self, path: str) -> bool:
        """Whether a port that pciehp looks after hangs below this one."""
        return any((self.root.resolve(f"{PCI}/{port}") or "").startswith(f"{path}/") for port in self._pciehp)


def read_pci_devices(topology: PciTopology) -> tuple[Device, ...]:
    """The functions that virtio-pci does not drive; of bridges those that carry more than one function or a slot."""
    found = []
    for address in topology.addresses:
        path = topology.root.resolve(f"{PCI}/{address}")
        driver = topology.root.link(f"{PCI}/{address}/driver")
        if path is None or driver == "virtio-pci":
            continue
        device = _device(topology, path, driver)
        # What is of no kind that can be asked about, and in no place that matters, is nobody's device here.
        if device.kind not in ("bridge", "pci") or device.attributes:
            found.append(device)
    return tuple(found)


def _device(topology: PciTopology, path: str, driver: str | None) -> Device:
    root, address = topology.root, path.rpartition("/")[2]
    kind = "nvme" if driver == "nvme" else _kind(root.text(f"{path}/class", 16))
    attributes = topology.attributes(path)
    hotpluggable = topology.slots.hotpluggable(path)
    nodes = tuple(root.list(f"{path}/net") or ())
    if kind == "nic":
        attributes["net"] = "some" if nodes else "none" if root.list(path) else "unknown"
    if kind == "nvme":
        controllers = root.list(f"{path}/nvme")
        nodes = _namespaces(root, path, controllers or ())
        if controllers or driver is None:  # a driver without a controller was not seen whole
            attributes["namespaces"] = str(len(nodes))
    if kind == "bridge" and topology.functions(address) > 1:
        attributes["functions"] = str(topology.functions(address))
    if kind == "bridge" and hotpluggable and topology.slots_below(path):
        attributes["slots_below"] = "1"
    return Device(
        name=address,
        transport="pci",
        address=address,
        kind=kind,
        driver=driver,
        nodes=nodes,
        mode="unknown",
        hotpluggable=hotpluggable,
        unplug="unknown",
        reason="",
        bus="pci",
        attributes=attributes,
    )


def _kind(code: str | None) -> str:
    """A word for the class code, as sysfs gives it: 0x010802."""
    digits = (code or "").removeprefix("0x")
    return KINDS.get(digits[:4]) or KINDS.get(digits[:2]) or "pci"


def _namespaces(root: Root, path: str, controllers: Sequence[str]) -> tuple[str, ...]:
    """The block devices of NVMe controllers. With multipath its own are paths, nvme0c0n1, to one disk nvme0n1."""
    found: dict[str, None] = {}
    for controller in controllers[:8]:
        for name in root.list(f"{path}/nvme/{controller}") or ():
            if match := NAMESPACE.fullmatch(name):
                found[f"nvme{match[1]}n{match[2]}"] = None
    return tuple(found)
