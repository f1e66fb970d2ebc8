# SPDX-License-Identifier: GPL-2.0-or-later
"""How each virtio device is driven is read from what sysfs proves, and nothing else."""

from pathlib import Path

import msgspec
import pytest

from ejectable import host
from tests.host.trees import LEGACY_DISK, MODERN_NIC, Device, Machine


def _read(tmp_path: Path, *devices: Device) -> tuple[host.Facts, tuple[object, ...]]:
    facts = host.read(host.Root(Machine(devices=devices, image=False, running_build_id="ab" * 20).build(tmp_path)))
    assert facts.devices is not None
    return facts, facts.devices


def test_bit_32_tells_legacy_from_modern(tmp_path: Path) -> None:
    facts, _ = _read(tmp_path, LEGACY_DISK, MODERN_NIC)
    assert facts.devices is not None
    disk, nic = facts.devices
    assert (disk.name, disk.transport, disk.address, disk.kind, disk.driver, disk.nodes, disk.mode) == (
        "virtio0",
        "pci",
        "0000:00:06.0",
        "disk",
        "virtio_blk",
        ("vdb",),
        "legacy",
    )
    assert (nic.kind, nic.nodes, nic.mode, nic.hotpluggable) == ("nic", ("eth0",), "modern", True)


def test_a_device_without_a_driver_is_not_called_legacy(tmp_path: Path) -> None:
    # Its features are all zero until a driver negotiates them.
    unbound = msgspec.structs.replace(LEGACY_DISK, driver=None, node=None)
    facts, _ = _read(tmp_path, unbound)
    assert facts.devices is not None
    assert facts.devices[0].mode == "unknown"


def test_features_that_are_missing_or_odd_are_unknown(tmp_path: Path) -> None:
    facts, _ = _read(tmp_path / "a", msgspec.structs.replace(LEGACY_DISK, bit_32=None))
    assert facts.devices is not None
    assert facts.devices[0].mode == "unknown"
    tree = Machine(devices=(LEGACY_DISK,), image=False, running_build_id="ab").build(tmp_path / "b")
    next((tree / "sys/devices").rglob("features")).write_text("0101 what\n")
    read = host.read(host.Root(tree)).devices
    assert read is not None
    assert read[0].mode == "unknown"


def test_an_id_that_only_modern_devices_have_is_enough(tmp_path: Path) -> None:
    facts, _ = _read(tmp_path, msgspec.structs.replace(MODERN_NIC, bit_32=None))
    assert facts.devices is not None
    assert facts.devices[0].mode == "modern"


@pytest.mark.parametrize("bus", ["mmio", "vdpa", "ccw"])
def test_other_transports_are_told(tmp_path: Path, bus: str) -> None:
    facts, _ = _read(tmp_path, msgspec.structs.replace(LEGACY_DISK, bus=bus))
    assert facts.devices is not None
    assert facts.devices[0].transport == bus
    assert facts.devices[0].hotpluggable is None


def test_a_slot_is_hotpluggable_where_a_hotplug_driver_shows_it(tmp_path: Path) -> None:
    facts, _ = _read(tmp_path / "a", LEGACY_DISK, msgspec.structs.replace(MODERN_NIC, hotplug=False))
    assert facts.devices is not None
    assert [device.hotpluggable for device in facts.devices] == [True, False]
    facts, _ = _read(tmp_path / "b", msgspec.structs.replace(LEGACY_DISK, hotplug=False))
    assert facts.devices is not None
    assert facts.devices[0].hotpluggable is None, "without any slot nothing can be told"


def test_a_device_behind_a_hotpluggable_bridge_goes_with_it(tmp_path: Path) -> None:
    tree = Machine(devices=(LEGACY_DISK,), image=False, running_build_id="ab").build(tmp_path)
    old = tree / "sys/devices/pci0000:00/0000:00:06.0"
    new = tree / "sys/devices/pci0000:00/0000:00:06.0/0000:01:00.0"
    aside = old.rename(tmp_path / "aside")
    old.mkdir()
    aside.rename(new)
    link = tree / "sys/bus/virtio/devices/virtio0"
    link.unlink()
    link.symlink_to("../../../devices/pci0000:00/0000:00:06.0/0000:01:00.0/virtio0")
    read = host.read(host.Root(tree)).devices
    assert read is not None
    assert (read[0].address, read[0].hotpluggable) == ("0000:01:00.0", True)


def test_no_virtio_bus_is_no_device_and_no_sysfs_is_no_answer(tmp_path: Path) -> None:
    with_sysfs = Machine(devices=(), image=False, running_build_id="ab").build(tmp_path / "a")
    assert host.read(host.Root(with_sysfs)).devices == ()
    without = Machine(sysfs=False, image=False).build(tmp_path / "b")
    assert host.read(host.Root(without)).devices is None


def test_a_tree_captured_without_links_is_still_read(tmp_path: Path) -> None:
    tree = Machine(devices=(LEGACY_DISK,), image=False, running_build_id="ab").build(tmp_path)
    link = tree / "sys/bus/virtio/devices/virtio0"
    link.unlink()
    link.mkdir()
    read = host.read(host.Root(tree)).devices
    assert read is not None
    assert (read[0].transport, read[0].mode) == ("pci", "legacy")


def test_scsi_disks_are_found_below_their_host(tmp_path: Path) -> None:
    scsi = Device(5, 8, "virtio_scsi", None, bit_32=False, pci_id=0x1004)
    tree = Machine(devices=(scsi,), image=False, running_build_id="ab").build(tmp_path)
    here = next((tree / "sys/devices").rglob("virtio0"))
    (here / "host2/target2:0:0/2:0:0:0/block/sda").mkdir(parents=True)
    read = host.read(host.Root(tree)).devices
    assert read is not None
    assert (read[0].kind, read[0].nodes) == ("scsi", ("sda",))
