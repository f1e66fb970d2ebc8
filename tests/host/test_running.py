# SPDX-License-Identifier: GPL-2.0-or-later
"""What the running kernel and the machine say of themselves."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable import host
from ejectable.host.policy import forced_legacy
from tests.host.trees import RELEASE, Machine, notes


def _tree(tmp_path: Path, **options: object) -> Path:
    return Machine(devices=(), image=False, running_build_id="ab" * 20, **options).build(tmp_path)  # type: ignore[arg-type]


def test_the_build_id_is_found_among_other_notes() -> None:
    assert (
        host.build_id(notes("0123456789abcdef0123456789abcdef01234567")) == "0123456789abcdef0123456789abcdef01234567"
    )


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.binary(max_size=64))
def test_notes_of_any_shape_are_survived(data: bytes) -> None:
    found = host.build_id(data)
    assert found is None or bytes.fromhex(found) in data


def test_a_note_larger_than_the_file_is_no_note() -> None:
    assert host.build_id(struct.pack("<III", 4, 0xFFFFFFFF, 3) + b"GNU\0") is None


def test_release_banner_and_build_id_are_read(tmp_path: Path) -> None:
    running = host.read_running(host.Root(_tree(tmp_path)))
    assert running is not None
    assert (running.release, running.build_id, running.arch) == (RELEASE, "ab" * 20, "x86_64")
    assert "virtio_pci" in running.modules


def test_nothing_runs_in_a_mounted_image(tmp_path: Path) -> None:
    tree = Machine(procfs=False, sysfs=False, image=False).build(tmp_path)
    assert host.read_running(host.Root(tree)) is None


@pytest.mark.parametrize(
    ("line", "forced"),
    [
        ("quiet virtio_pci.force_legacy=1", True),
        ("virtio-pci.force-legacy=Y quiet", True),
        ("virtio_pci.force_legacy", True),
        ("virtio_pci.force_legacy=1 virtio_pci.force_legacy=0", False),
        ("virtio_pci.force_legacy=n", False),
        ("xvirtio_pci.force_legacy=1", False),
        ("", False),
    ],
)
def test_force_legacy_on_the_command_line(tmp_path: Path, line: str, forced: bool) -> None:
    assert bool(forced_legacy(host.Root(_tree(tmp_path)), line)) is forced


def test_force_legacy_in_modprobe_d_is_named(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    (tree / "etc/modprobe.d").mkdir()
    (tree / "etc/modprobe.d/virtio.conf").write_text("# why\noptions virtio_pci force_legacy=1\n")
    (tree / "etc/modprobe.d/other.conf").write_text("#options virtio_pci force_legacy=1\n")
    assert forced_legacy(host.Root(tree), "") == ("/etc/modprobe.d/virtio.conf",)


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("run/systemd/container", "lxc\n", "lxc"),
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/1/cgroup", "0::/kubepods.slice/burstable/pod1/cri-1\n", "kubernetes"),
        ("proc/1/environ", "PATH=/bin\0container=podman\0HOME=/\0", "podman"),
        ("etc/nothing", "", None),
    ],
)
def test_containers_are_recognised(tmp_path: Path, path: str, content: str, kind: str | None) -> None:
    tree = _tree(tmp_path)
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(content)
    assert host.read(host.Root(tree)).container == kind


def test_the_docker_marker_in_a_machine_s_own_root_is_no_container(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    (tree / ".dockerenv").write_text("")
    (tree / "proc/1").mkdir()
    (tree / "proc/1/mountinfo").write_text("1 0 254:1 / / rw - ext4 /dev/vda1 rw\n")
    assert host.read(host.Root(tree)).container is None


def test_machine_and_cloud_are_named(tmp_path: Path) -> None:
    found = host.read(host.Root(_tree(tmp_path))).host
    assert (found.name, found.os, found.virtualization, found.cloud, found.instance_type) == (
        "web-1",
        "Debian GNU/Linux 12 (bookworm)",
        "kvm",
        "alibaba",
        None,
    )


def test_enabled_live_patches_are_listed(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    for patch, enabled in (("livepatch_a", "1"), ("livepatch_b", "0")):
        (tree / f"sys/kernel/livepatch/{patch}/virtio_pci/vp_del_vqs,1").mkdir(parents=True)
        (tree / f"sys/kernel/livepatch/{patch}/enabled").write_text(enabled)
    running = host.read_running(host.Root(tree))
    assert running is not None
    assert [str(one) for one in running.patched] == ["livepatch_a: virtio_pci/vp_del_vqs"]


def test_the_panic_policy_is_read(tmp_path: Path) -> None:
    policy = host.read(host.Root(_tree(tmp_path, panic_on_oops=0, panic=-1, kdump=0))).policy
    assert (policy.panic_on_oops, policy.panic, policy.kdump) == (False, -1, False)
    assert host.read(host.Root(_tree(tmp_path / "none", panic_on_oops=None, kdump=None))).policy.panic_on_oops is None
