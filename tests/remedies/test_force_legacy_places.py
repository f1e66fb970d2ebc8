# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file that asks for force_legacy is found, and only the words that ask are taken out of it."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable import host
from ejectable.host.policy import forced_legacy
from ejectable.remedies.legacy_places import edited, find_places, in_unified_images, override_of
from ejectable.remedies.transitional import can_be_modern


def put(root: Path, path: str, text: str | bytes) -> None:
    there = root / path.lstrip("/")
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('GRUB_CMDLINE_LINUX="quiet virtio_pci.force_legacy=1 splash"', 'GRUB_CMDLINE_LINUX="quiet splash"'),
        ('GRUB_CMDLINE_LINUX="virtio_pci.force_legacy=1"', 'GRUB_CMDLINE_LINUX=""'),
        ("GRUB_CMDLINE_LINUX='virtio_pci.force_legacy=1 quiet'", "GRUB_CMDLINE_LINUX='quiet'"),
        ('GRUB_CMDLINE_LINUX="quiet virtio-pci.force-legacy"', 'GRUB_CMDLINE_LINUX="quiet"'),
        ("GRUB_CMDLINE_LINUX=virtio_pci.force_legacy=Y", "GRUB_CMDLINE_LINUX="),
        ("options root=/dev/vda1 ro virtio_pci.force_legacy=on\n", "options root=/dev/vda1 ro\n"),
        ("virtio_pci.force_legacy=1 ro\n", "ro\n"),
        ("ro  virtio_pci.force_legacy=1  quiet\r\n", "ro  quiet\r\n"),
        ("ro virtio_pci.force_legacy=1 virtio_pci.force_legacy=1 quiet", "ro quiet"),
    ],
)
def test_the_word_goes_and_the_rest_of_the_line_stays(before: str, after: str) -> None:
    assert edited(before, "command-line") == after


@pytest.mark.parametrize(
    "text",
    [
        "# GRUB_CMDLINE_LINUX='virtio_pci.force_legacy=1'\n",
        "ro virtio_pci.force_legacy=0\n",
        "ro virtio_pci.force_legacy=off\n",
        "ro virtio_pci.force_legacy_not=1\n",
        "ro my.virtio_pci.force_legacy=1\n",
        "ro virtio_net.force_legacy=1\n",
        "",
    ],
)
def test_what_does_not_ask_for_it_stays(text: str) -> None:
    assert edited(text, "command-line") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("options virtio_pci force_legacy=1\n", ""),
        ("a\noptions virtio-pci force_legacy\nb\n", "a\nb\n"),
        ("options virtio_pci force_legacy=1 other=2\n", "options virtio_pci other=2\n"),
        ("options virtio_pci other=2 force_legacy=Y # no comment\n", "options virtio_pci other=2 # no comment\n"),
        ("options virtio_pci \\\n  force_legacy=1 \\\n  other=2\n", "options virtio_pci \\\n \\\n  other=2\n"),
        ("options virtio_pci \\\n  force_legacy=1\nkeep\n", "keep\n"),
        ("# options virtio_pci force_legacy=1\n", "# options virtio_pci force_legacy=1\n"),
        ("options virtio_pci force_legacy=0\n", "options virtio_pci force_legacy=0\n"),
        ("options virtio_pcix force_legacy=1\n", "options virtio_pcix force_legacy=1\n"),
        ("options virtio_pci force_legacy=1", ""),
        ("options virtio_pci\n", "options virtio_pci\n"),
        ("blacklist x\\", "blacklist x\\"),
    ],
)
def test_of_modprobes_options_only_that_one_goes(before: str, after: str) -> None:
    assert edited(before, "modprobe") == after


@settings(deadline=None, derandomize=True)
@given(st.text(alphabet="options virtio_pci force_legacy=1\\\n\t#\"' ", max_size=120))
def test_an_edit_is_its_own_end_and_only_ever_takes_away(text: str) -> None:
    for kind in ("command-line", "modprobe"):
        once = edited(text, kind)
        assert edited(once, kind) == once
        left = iter(text)
        assert all(character in left for character in once), "what is left stands there in the same order"


def test_grubs_environment_block_keeps_its_size() -> None:
    block = "# GRUB Environment Block\nkernelopts=root=/dev/vda1 virtio_pci.force_legacy=1 ro\n".ljust(1024, "#")
    after = edited(block, "command-line", "/boot/grub2/grubenv")
    assert len(after) == 1024
    assert after.startswith("# GRUB Environment Block\nkernelopts=root=/dev/vda1 ro\n##")


def test_every_kind_of_place_is_found(tmp_path: Path) -> None:
    asks = "x virtio_pci.force_legacy=1\n"
    expected = []
    for path in (
        "/etc/default/grub",
        "/etc/default/grub.d/50-cloud.cfg",
        "/etc/kernel/cmdline",
        "/boot/loader/entries/a b.conf",
        "/boot/grub2/grubenv",
        "/boot/extlinux/extlinux.conf",
        "/boot/grub/grub.cfg",
        "/etc/grub.d/40_custom",
    ):
        put(tmp_path, path, asks)
        expected.append(path)
    put(tmp_path, "/usr/lib/kernel/cmdline", asks)  # the one in /etc is read instead
    put(tmp_path, "/etc/default/grub.d/old.cfg~", asks)
    put(tmp_path, "/etc/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")
    put(tmp_path, "/usr/lib/modprobe.d/virtio.conf", "options virtio_pci force_legacy=1\n")  # hidden by the one in /etc
    put(tmp_path, "/usr/lib/modprobe.d/vendor.conf", "x\noptions virtio_pci force_legacy\n")
    put(tmp_path, "/etc/modprobe.d/i.conf", "install virtio_pci modprobe -i virtio_pci force_legacy=1\n")
    found = find_places(host.Root(tmp_path))
    assert sorted(place.path for place in found) == sorted(
        [*expected, "/etc/modprobe.d/virtio.conf", "/usr/lib/modprobe.d/vendor.conf", "/etc/modprobe.d/i.conf"]
    )
    kinds = {place.path: (place.kind, place.line) for place in found}
    assert kinds["/boot/grub/grub.cfg"] == ("menu", 1)
    assert kinds["/etc/grub.d/40_custom"] == kinds["/etc/modprobe.d/i.conf"] == ("by-hand", 1)
    assert kinds["/usr/lib/modprobe.d/vendor.conf"] == ("modprobe", 2)


def test_what_a_package_owns_is_overridden_not_edited() -> None:
    assert override_of("/usr/lib/modprobe.d/vendor.conf") == "/etc/modprobe.d/vendor.conf"
    assert override_of("/run/modprobe.d/x.conf") == "/etc/modprobe.d/x.conf"
    assert override_of("/etc/modprobe.d/x.conf") == "/etc/modprobe.d/x.conf"
    assert override_of("/usr/lib/kernel/cmdline") == "/etc/kernel/cmdline"


def test_hostile_files_are_passed_over(tmp_path: Path) -> None:
    import os

    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/grub").symlink_to("/etc/passwd")
    (tmp_path / "etc/kernel").mkdir()
    os.mkfifo(tmp_path / "etc/kernel/cmdline")
    put(tmp_path, "/boot/grub/grub.cfg", b"")
    with (tmp_path / "boot/grub/grub.cfg").open("r+b") as file:
        file.truncate(1 << 40)
    assert find_places(host.Root(tmp_path)) == ()


def test_a_masked_file_of_modprobe_hides_the_packages(tmp_path: Path) -> None:
    put(tmp_path, "/usr/lib/modprobe.d/v.conf", "options virtio_pci force_legacy=1\n")
    assert forced_legacy(host.Root(tmp_path), None) == ("/usr/lib/modprobe.d/v.conf",)
    (tmp_path / "etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "etc/modprobe.d/v.conf").symlink_to("/dev/null")
    assert find_places(host.Root(tmp_path)) == ()
    assert forced_legacy(host.Root(tmp_path), None) == ()


def test_a_unified_image_with_it_built_in_is_found(tmp_path: Path) -> None:
    put(tmp_path, "/boot/efi/EFI/Linux/a.efi", b"MZ\0\0.cmdline\0root=x virtio_pci.force_legacy=1\0")
    put(tmp_path, "/boot/efi/EFI/Linux/b.efi", b"MZ\0\0.cmdline\0root=x virtio_pci.force_legacy=0\0")
    assert in_unified_images(host.Root(tmp_path)) == ("/boot/efi/EFI/Linux/a.efi",)


# PCI capabilities


def config(*capabilities: tuple[int, int, int], status: int = 0x10) -> bytes:
    """Configuration space with capabilities (offset, id, cfg_type) in this order."""
    data = bytearray(256)
    data[0x06] = status
    at = 0x34
    for offset, kind, cfg_type in capabilities:
        data[at] = offset
        data[offset : offset + 4] = bytes((kind, 0, 16, cfg_type))
        at = offset + 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (config((0x98, 0x11, 0), (0x84, 9, 5), (0x70, 9, 2), (0x40, 9, 1)), True),  # as QEMU's transitional disk
        (config((0x98, 0x11, 0)), False),  # MSI-X only: legacy
        (config((0x40, 9, 5)), False),  # a vendor capability that is not the common configuration
        (config(status=0), False),
        (config((0x98, 0x11, 0), (0x40, 9, 1))[:64], None),  # what a user who is not root reads
        (b"", None),
        (b"\0" * 10, None),
    ],
)
def test_a_transitional_device_is_told_by_its_capabilities(tmp_path: Path, data: bytes, answer: bool | None) -> None:
    put(tmp_path, "/sys/bus/pci/devices/0000:00:06.0/config", data)
    assert can_be_modern(host.Root(tmp_path), "0000:00:06.0") is answer


def test_a_list_of_capabilities_that_goes_in_circles_ends(tmp_path: Path) -> None:
    data = bytearray(config((0x40, 5, 0)))
    data[0x41] = 0x40
    put(tmp_path, "/sys/bus/pci/devices/a/config", bytes(data))
    assert can_be_modern(host.Root(tmp_path), "a") is False
    assert can_be_modern(host.Root(tmp_path), "nowhere") is None


def configuration(mode: str) -> bytes:
    """The PCI configuration of a virtio device of QEMU's, read through its test protocol: no guest has to run."""
    device = f"virtio-rng-pci,addr=4,{mode}"
    command = ["qemu-system-x86_64", "-machine", "pc", "-S", "-nodefaults", "-display", "none", "-qtest", "stdio"]
    asked = "".join(f"outl 0xcf8 {0x80002000 | at:#x}\ninl 0xcfc\n" for at in range(0, 256, 4))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "-qtest-log", "none", "-device", device], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        qemu.stdin.write(asked)
        qemu.stdin.flush()
        answers = [qemu.stdout.readline() for _ in range(2 * 64)]
        qemu.kill()
    return struct.pack("<64I", *(int(line.split()[1], 16) for line in answers[1::2]))


@pytest.mark.guest
@pytest.mark.parametrize(
    ("mode", "pci_id", "answer"),
    [
        ("disable-legacy=off,disable-modern=off", 0x1005, True),
        ("disable-legacy=off,disable-modern=on", 0x1005, False),
        ("disable-legacy=on,disable-modern=off", 0x1044, True),
    ],
)
def test_qemus_devices_are_told_apart(tmp_path: Path, mode: str, pci_id: int, answer: bool) -> None:
    data = configuration(mode)
    assert struct.unpack_from("<HH", data) == (0x1AF4, pci_id)
    put(tmp_path, "/sys/bus/pci/devices/0000:00:04.0/config", data)
    assert can_be_modern(host.Root(tmp_path), "0000:00:04.0") is answer
