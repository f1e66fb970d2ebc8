# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of other buses than virtio's are read from sysfs, and each advisory is asked about those that it is about."""

import shutil
from pathlib import Path

import pytest

from ejectable.advisories import registry
from ejectable.host import Root
from ejectable.host.devices import read_devices
from ejectable.host.slots import Slots
from ejectable.model import Device, DoubtKind, Finding, Status

DEVICES = "sys/devices/pci0000:00"


def _write(tree: Path, folder: str, **files: str) -> Path:
    path = tree / folder
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", "/")).write_text(f"{content}\n")
    return path


def _on(tree: Path, bus: str, name: str, folder: str, driver: str | None = None) -> None:
    """List a device on its bus, with its driver, as sysfs does."""
    listed = tree / f"sys/bus/{bus}/devices"
    listed.mkdir(parents=True, exist_ok=True)
    (listed / name).symlink_to(f"../../../../{folder}")
    if driver is not None:
        bound = tree / f"sys/bus/{bus}/drivers/{driver}"
        bound.mkdir(parents=True, exist_ok=True)
        (tree / folder / "driver").symlink_to(bound)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An NVMe controller with two disks, a card with virtual functions, a removable SCSI disk, Xen's and Hyper-V's."""
    _write(tmp_path, f"{DEVICES}/0000:00:04.0", **{"class": "0x010802"})
    for name in ("nvme0n1", "nvme0n2"):
        _write(tmp_path, f"{DEVICES}/0000:00:04.0/nvme/nvme0/{name}")
    _on(tmp_path, "pci", "0000:00:04.0", f"{DEVICES}/0000:00:04.0", "nvme")
    _write(tmp_path, f"{DEVICES}/0000:00:05.0", sriov_numvfs="2", **{"class": "0x020000"})
    _on(tmp_path, "pci", "0000:00:05.0", f"{DEVICES}/0000:00:05.0", "igb")
    port = f"{DEVICES}/0000:00:06.0"
    _write(tmp_path, port, **{"class": "0x060400"})
    _on(tmp_path, "pci", "0000:00:06.0", port, "pcieport")
    _write(tmp_path, f"{port}/0000:00:06.0:pcie004")
    _on(tmp_path, "pci_express", "0000:00:06.0:pcie004", f"{port}/0000:00:06.0:pcie004", "pciehp")
    _write(tmp_path, f"{port}/0000:01:00.0", **{"class": "0x030000"})
    _on(tmp_path, "pci", "0000:01:00.0", f"{port}/0000:01:00.0", "vfio-pci")
    disk = "sys/devices/host0/target0:0:0/0:0:0:0"
    _write(tmp_path, f"{disk}/block/sda", removable="1")
    _write(tmp_path, disk, type="0")
    _on(tmp_path, "scsi", "0:0:0:0", disk, "sd")
    _write(tmp_path, "sys/devices/vif-0/net/eth0")
    _on(tmp_path, "xen", "vif-0", "sys/devices/vif-0", "vif")
    _write(tmp_path, "sys/devices/vbd-51712/block/xvda")
    _on(tmp_path, "xen", "vbd-51712", "sys/devices/vbd-51712", "vbd")
    channel = "sys/devices/00112233-4455-6677-8899-aabbccddeeff"
    _write(tmp_path, f"{channel}/net/eth1")
    _on(tmp_path, "vmbus", "00112233-4455-6677-8899-aabbccddeeff", channel, "hv_netvsc")
    _write(tmp_path, "sys/bus/virtio/devices")
    return tmp_path


def _devices(tree: Path) -> dict[str, Device]:
    root = Root(str(tree))
    return {device.name: device for device in read_devices(root, Slots(root)).devices or ()}


def test_every_device_is_read_with_what_its_place_says(tree: Path) -> None:
    found = _devices(tree)
    assert found["0000:00:04.0"].nodes == ("nvme0n1", "nvme0n2")
    assert found["0000:00:04.0"].attributes["namespaces"] == "2"
    assert found["0000:00:05.0"].attributes["sriov_numvfs"] == "2"
    assert found["0000:01:00.0"].attributes["pciehp"] == "1"
    assert found["0:0:0:0"].attributes == {"removable": "1"}
    assert (found["vif-0"].kind, found["vbd-51712"].kind) == ("nic", "disk")
    assert found["00112233-4455-6677-8899-aabbccddeeff"].nodes == ("eth1",)
    assert "0000:00:06.0" not in found, "a port with one function and no slot below another is nobody's device"


@pytest.mark.parametrize(
    ("advisory", "device"),
    [
        ("CVE-2025-68756", "0000:00:04.0"),
        ("CVE-2026-64326", "0000:00:04.0"),
        ("CVE-2026-43147", "0000:00:05.0"),
        ("pciehp-abba", "0000:01:00.0"),
        ("CVE-2024-42294", "0:0:0:0"),
        ("CVE-2024-53240", "vif-0"),
        ("xen-blkfront-unplug", "vbd-51712"),
        ("CVE-2024-26698", "00112233-4455-6677-8899-aabbccddeeff"),
    ],
)
def test_an_advisory_is_about_its_devices_and_no_others(tree: Path, advisory: str, device: str) -> None:
    asked = registry()[advisory]
    affected = Finding(advisory, Status.AFFECTED, None, "it is", (), conflict=False)
    met = [name for name, one in _devices(tree).items() if (said := asked.exposures(one, affected)) and said[0].met]
    assert met == [device]


def test_a_device_that_the_tree_has_and_its_bus_does_not_list_is_a_doubt(tree: Path) -> None:
    (tree / "sys/bus/scsi/devices/0:0:0:0").unlink()
    root = Root(str(tree))
    doubts = read_devices(root, Slots(root)).doubts
    assert [doubt.kind for doubt in doubts if "0:0:0:0" in doubt.detail] == [DoubtKind.MISSING]


@pytest.mark.parametrize("advisory", ["CVE-2025-68756", "CVE-2026-64326"])
def test_a_controller_whose_disks_were_not_seen_is_never_spared(tree: Path, advisory: str) -> None:
    shutil.rmtree(tree / f"{DEVICES}/0000:00:04.0/nvme")
    affected = Finding(advisory, Status.AFFECTED, None, "it is", (), conflict=False)
    said = registry()[advisory].exposures(_devices(tree)["0000:00:04.0"], affected)
    assert said is not None
    assert said[0].met is None
    assert {one.status for one in said[1]} == {Status.UNKNOWN}
