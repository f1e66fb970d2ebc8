# SPDX-License-Identifier: GPL-2.0-or-later
"""Detaching with the machine stopped: which device, what it is called on its host, and the commands."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import WrongUsage
from ejectable.model import Device as Virtio
from ejectable.model import Remedy, Status
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.detach.attachments import Attachment, attachments, named
from ejectable.remedies.detach.hosts import Place, recipe
from ejectable.remedies.detach.remedy import DetachWhileStopped
from tests.host.trees import LEGACY_DISK, MODERN_NIC, Device, Machine, affected_module
from tests.one import the_first
from tests.remedies.ecs_metadata import Metadata, telling
from tests.remedies.ecs_server import INSTANCE, REGION

pytestmark = pytest.mark.kernels

SERIAL = "bp1ejectable00000000"
SYSTEM_DISK = Device(5, 2, "virtio_blk", ("block", "vda"), bit_32=False)
SECOND_DISK = Device(8, 2, "virtio_blk", ("block", "vdc"), bit_32=False)
LEGACY_NIC = Device(9, 1, "virtio_net", ("net", "eth1"), bit_32=False, pci_id=0x1000)
FIRST_NIC = Device(4, 1, "virtio_net", ("net", "eth0"), bit_32=False, pci_id=0x1000)
RNG = Device(10, 4, "virtio_rng", None, bit_32=False, pci_id=0x1005)
ANY = Request()
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Build a machine; `files` are added to it, by path."""

    def build(*devices: Device, files: dict[str, str] | None = None) -> Path:
        root = Machine(module=affected_module(), devices=devices).build(tmp_path / "machine")
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    return build


def planned(root: Path, request: Request = ANY) -> Remedy:
    situation = Situation(host.Root(root), the_first(), cache=False)
    (line,) = execute.plan(situation, request, ["detach-while-stopped"])
    return line


def verbs(line: Remedy) -> list[str]:
    return [shlex.split(command)[2] for command in line.commands]


CLOUD_INIT = {
    "run/cloud-init/instance-data.json": f'{{"v1": {{"instance_id": "{INSTANCE}", "region": "{REGION}"}}}}',
    "sys/block/vdb/serial": SERIAL,
}


def test_the_commands_name_this_instance_and_this_disk(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, files=CLOUD_INIT))
    assert line.state == "possible"
    assert "never unplugged hot" in line.why
    assert "vdb" in line.why
    assert verbs(line) == ["StopInstance", "DescribeInstances", "DetachDisk", "StartInstance", "DescribeInstances"]
    assert line.commands[2] == f"aliyun ecs DetachDisk --region {REGION} --InstanceId {INSTANCE} --DiskId d-{SERIAL}"
    assert "to=Stopped" in line.commands[1]
    assert any("what follows `d-`" in detail for detail in line.details)
    assert any("NVMe is no virtio device" in detail for detail in line.details)
    assert any("/etc/fstab may have a line for it" in detail for detail in line.details)


def test_what_is_not_known_stands_in_capitals(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK))
    assert line.commands[2] == "aliyun ecs DetachDisk --region REGION_ID --InstanceId INSTANCE_ID --DiskId DISK_ID"
    assert any(detail.startswith("DISK_ID: aliyun ecs DescribeDisks") for detail in line.details)


@pytest.mark.parametrize("name", ["vdb", "/dev/vdb", "/dev/vdb1", "virtio0", "0000:00:06.0", SERIAL, f"d-{SERIAL}"])
def test_a_disk_is_found_by_any_of_its_names(name: str, tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, SECOND_DISK, files=CLOUD_INIT), Request(device=name))
    assert line.state == "possible"
    assert f"--DiskId d-{SERIAL}" in line.commands[2]


def test_a_name_that_is_not_here_says_what_is(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, SECOND_DISK), Request(device="vdz"))
    assert line.state == "impossible"
    assert "there are: vdb, vdc" in line.why


@pytest.mark.parametrize("name", ["vdb; reboot", "$(id)", "", "a" * 200, "vd b"])
def test_a_name_that_is_none_is_refused(name: str, tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK), Request(device=name))
    assert line.state == "impossible"
    assert "no name of a device" in line.why


MOUNTS = """\
22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 253:17 / /srv/my\\040data rw,relatime shared:2 - ext4 /dev/vdb1 rw
"""


def test_the_system_s_own_disk_stays(tree: Tree) -> None:
    root = tree(SYSTEM_DISK, LEGACY_DISK, files={"proc/self/mountinfo": MOUNTS})
    line = planned(root)
    assert "For vdb (" in line.why
    assert "vdb is in use (/srv/my data): stop what needs it first" in line.why
    line = planned(root, Request(device="vda"))
    assert line.state == "impossible"
    assert line.why == "The machine cannot do without vda: it holds /."


def test_nothing_but_the_system_s_own_is_no_choice(tree: Tree) -> None:
    files = {"proc/mounts": "/dev/vda1 / ext4 rw 0 0\n", "proc/net/route": "Iface\tDestination\neth0\t00000000\t0\n"}
    line = planned(tree(SYSTEM_DISK, FIRST_NIC, RNG, files=files))
    assert line.state == "impossible"
    for said in ("vda (it holds /)", "eth0 (the default route", "virtio2 (a part of the machine)"):
        assert said in line.why


def test_of_several_the_one_that_nobody_uses_is_named_and_the_others_told(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, SECOND_DISK, LEGACY_NIC, files={"proc/mounts": "/dev/vdb1 /srv ext4 rw 0 0\n"}))
    assert "For vdc (" in line.why
    assert "in use" not in line.why
    assert "Others that could go: vdb, eth1 (--device)." in line.details


@pytest.mark.parametrize("first", ["/dev/vdb1", f"/dev/disk/by-id/virtio-{SERIAL}-part1"])
def test_a_line_in_fstab_is_told(first: str, tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, files=CLOUD_INIT | {"etc/fstab": f"# disks\n{first} /srv ext4 defaults 0 2\n"}))
    assert any("/etc/fstab has a line for it" in detail for detail in line.details)


def test_swap_and_holders_are_uses(tree: Tree) -> None:
    root = tree(LEGACY_DISK, files={"proc/swaps": "Filename\tType\n/dev/vdb2\tpartition\t1\n"})
    (root / "sys/block/vdb/vdb1/holders/dm-0").mkdir(parents=True)
    (one,) = attachments(host.Root(root), Situation(host.Root(root), the_first(), cache=False).assessment.devices)
    assert one.used == ("swap", "dm-0")


def test_a_device_that_is_safe_can_go_while_it_runs(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, MODERN_NIC), Request(device="eth0"))
    assert line.state == "impossible"
    assert "eth0 can go while the machine runs" in line.why


def test_where_nothing_would_crash_nothing_is_stopped(tree: Tree) -> None:
    line = planned(tree(MODERN_NIC))
    assert line.state == "impossible"
    assert "No device here would crash" in line.why


def test_a_disk_over_nvme_needs_none_of_it(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK), Request(device="/dev/nvme1n1"))
    assert line.state == "impossible"
    assert "no virtio device" in line.why


def test_a_network_card_is_known_by_its_address(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = host.Root(tree(LEGACY_NIC, files={"sys/class/net/eth1/address": "00:16:3e:01:02:03\n"}))
    root.live = True
    situation = Situation(root, the_first(), cache=False)
    with telling(Metadata(hardened=True)) as address:
        monkeypatch.setenv("EJECTABLE_ECS_METADATA", address)
        line = DetachWhileStopped().plan(situation, Request(device="eth1"))
    assert verbs(line)[2] == "DetachNetworkInterface"
    assert line.commands[2].endswith("--NetworkInterfaceId eni-bp1ejectable00000000")
    assert any("Only a secondary" in detail for detail in line.details)
    situation = Situation(root, the_first(), cache=False, offline=True)
    line = DetachWhileStopped().plan(situation, Request(device="eth1"))
    assert "NETWORK_INTERFACE_ID" in line.commands[2]
    assert any("its MAC address is 00:16:3e:01:02:03" in detail for detail in line.details)


def test_for_another_instance_it_says_what_cannot_be_seen_from_here(tmp_path: Path) -> None:
    request = Request(instance=INSTANCE, region=REGION, device=f"d-{SERIAL}")
    line = planned(tmp_path, request)
    assert line.commands[2] == f"aliyun ecs DetachDisk --region {REGION} --InstanceId {INSTANCE} --DiskId d-{SERIAL}"
    assert any("only that machine can tell" in detail for detail in line.details)
    line = planned(tmp_path, Request(instance=INSTANCE, region=REGION, device="eni-bp1ejectable00000000"))
    assert verbs(line)[2] == "DetachNetworkInterface"
    situation = Situation(host.Root(tmp_path), the_first(), cache=False)
    assert execute.status(situation, "detach-while-stopped", request) is Status.UNKNOWN


def test_it_is_for_people(tmp_path: Path) -> None:
    situation = Situation(host.Root(tmp_path), the_first(), cache=False)
    with pytest.raises(WrongUsage, match="for people to carry out"):
        execute.apply(situation, "detach-while-stopped", Request())


def attachment(kind: str = "disk", node: str | None = "vdb", **known: str) -> Attachment:
    device = Virtio("virtio1", "pci", "0000:00:06.0", kind, None, (), "legacy", True, "would_oops", "")
    return Attachment(device, node, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "one", "lines"),
    [
        (
            Place(None, "kvm", uuid="1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
            attachment(),
            ["virsh shutdown 1b4e28ba", "until virsh domstate", "virsh detach-disk 1b4e28ba", "virsh start 1b4e28ba"],
        ),
        (
            Place(None, "kvm"),
            attachment("nic", "eth1", mac="52:54:00:12:34:56"),
            [
                "virsh shutdown",
                "until",
                "virsh detach-interface DOMAIN network --mac 52:54:00:12:34:56 --config",
                "virsh",
            ],
        ),
        (
            Place("openstack", "kvm", uuid="1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
            attachment(serial="6a1c38a0-8a14-4f0e-b"),
            [
                "openstack server stop 1b4e28ba",
                "openstack server remove volume 1b4e28ba",
                "openstack server start 1b4e",
            ],
        ),
        (
            Place("openstack"),
            attachment("nic"),
            [
                "openstack server stop SERVER",
                "openstack server remove port SERVER PORT",
                "openstack server start SERVER",
            ],
        ),
        (
            Place("gcp"),
            attachment(),
            ["gcloud compute instances stop", "gcloud compute instances detach-disk", "gcloud compute instances start"],
        ),
        (Place("gcp"), attachment("nic"), []),
        (
            Place("aws"),
            attachment(),
            [
                "aws ec2 stop-instances",
                "aws ec2 wait instance-stopped",
                "aws ec2 detach-volume",
                "aws ec2 start-instances",
            ],
        ),
        (
            Place("aws"),
            attachment("nic"),
            ["aws ec2 stop-instances", "aws ec2 wait", "aws ec2 detach-network-interface", "aws ec2 start-instances"],
        ),
        (Place("azure"), attachment(), ["az vm deallocate", "az vm disk detach", "az vm start"]),
        (Place("azure"), attachment("nic"), ["az vm deallocate", "az vm nic remove", "az vm start"]),
        (Place("tencent"), attachment(), []),
    ],
    ids=lambda value: f"{value.cloud} {value.virtualization}" if isinstance(value, Place) else None,
)
def test_each_host_has_its_commands(place: Place, one: Attachment, lines: list[str]) -> None:
    said = recipe(place, one)
    assert len(said.commands) == len(lines)
    for command, beginning in zip(said.commands, lines, strict=True):
        assert command.startswith(beginning)
        assert shlex.split(command)
    assert said.notes


def test_of_a_volume_s_uuid_the_serial_is_the_beginning() -> None:
    one = attachment(serial="6a1c38a0-8a14-4f0e-b")
    assert named([one], "6a1c38a0-8a14-4f0e-b7aa-1c2d3e4f5a6b") is one
    assert named([one], "7a1c38a0-8a14-4f0e-b7aa-1c2d3e4f5a6b") is None
    note = recipe(Place("openstack"), one).notes[0]
    assert "whose id begins with 6a1c38a0-8a14-4f0e-b" in note


def test_a_serial_that_is_hostile_is_dropped(tree: Tree) -> None:
    line = planned(tree(LEGACY_DISK, files=CLOUD_INIT | {"sys/block/vdb/serial": "$(reboot);`id`"}))
    assert "--DiskId DISK_ID" in line.commands[2]


def test_an_unprivileged_plan_of_this_machine_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    line = DetachWhileStopped().plan(Situation(host.Root("/"), the_first(), cache=False, offline=True), Request())
    assert line.state in ("possible", "impossible")
    assert line.why


@pytest.mark.parametrize("hide", ["everything", "sys"])
def test_where_the_devices_were_not_seen_none_is_said_to_be_safe(tmp_path: Path, hide: str) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    if hide != "everything":
        root = Machine(module=affected_module(), sysfs=hide != "sys").build(tmp_path / "machine")
    for request in (ANY, Request(device="vdb")):
        line = planned(root, request)
        assert line.state == "impossible"
        assert "is not known" in line.why
        assert "each can go" not in line.why
