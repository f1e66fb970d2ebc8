# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel in a unified kernel image, a uImage, a FIT and an Android boot image, each made by its own tool.

`mkimage` is in u-boot-tools (with device-tree-compiler), `mkbootimg` and the EFI stub (systemd-boot-efi) in packages of
these names.
"""

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.archive import cache_folder, fetch, locked
from ejectable.advisories import choose
from ejectable.assess.kernels import Judged, judge_path, status_of
from ejectable.errors import Missing
from ejectable.intake import DEFAULT_LIMITS, Compression
from ejectable.kernel.formats.bundles import unwrap
from ejectable.model import Status
from tests.kernel import synthetic
from tests.kernel.synthetic import absent, cpio_newc, tool
from tests.kernel.test_provenance import TREE, USUAL, image, module

pytestmark = pytest.mark.kernels

IDS = tuple(choose(()))
Maker = Callable[[Path, bytes, bytes], Path]


def judged(path: Path) -> Judged:
    return judge_path(str(path), IDS, DEFAULT_LIMITS)


def initramfs(variant: str) -> bytes:
    return gzip.compress(cpio_newc({f"{TREE}/{USUAL}": module(variant)}), mtime=0)


def stub() -> Path:
    """systemd's EFI stub for x86-64."""
    try:
        package = fetch("systemd-boot-efi")
    except Missing as error:
        absent(f"{error.message} {error.hint or ''}")
    folder = cache_folder() / "reference" / package.stem
    with locked("systemd-boot-efi"):
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / "usr/lib/systemd/boot/efi/linuxx64.efi.stub"


def uki(folder: Path, kernel: bytes, initrd: bytes) -> Path:
    """As systemd's manual has it (systemd-stub(7)); ukify does the same."""
    made = folder / "kernel.efi"
    command: list[str | Path] = [tool("objcopy", "binutils")]
    for number, (name, data) in enumerate(((".uname", b"x"), (".linux", kernel), (".initrd", initrd))):
        part = folder / name.removeprefix(".")
        part.write_bytes(data)
        command += ["--add-section", f"{name}={part}", "--change-section-vma", f"{name}={0x2000000 * (number + 1):#x}"]
    subprocess.run([*command, stub(), made], check=True, capture_output=True)
    return made


def uimage(folder: Path, kernel: bytes, initrd: bytes) -> Path:
    """Kernel and ramdisk in one legacy image."""
    (folder / "k").write_bytes(kernel)
    (folder / "i").write_bytes(initrd)
    command = [
        tool("mkimage", "u-boot-tools"),
        "-A",
        "x86_64",
        "-O",
        "linux",
        "-T",
        "multi",
        "-C",
        "none",
        "-n",
        "a kernel",
    ]
    subprocess.run([*command, "-d", f"{folder}/k:{folder}/i", folder / "uImage"], check=True, capture_output=True)
    return folder / "uImage"


def fit(folder: Path, kernel: bytes, initrd: bytes, *, external: bool = False) -> Path:
    """As doc/usage/fit of U-Boot; `external`: the data behind the tree."""
    (folder / "k").write_bytes(kernel)
    (folder / "i").write_bytes(initrd)
    (folder / "image.its").write_text(
        """/dts-v1/;
/ { description = "x"; #address-cells = <1>;
  images {
    kernel-1 { description = "k"; data = /incbin/("k"); type = "kernel"; arch = "x86_64"; os = "linux";
      compression = "none"; load = <0>; entry = <0>; hash-1 { algo = "sha256"; }; };
    ramdisk-1 { description = "r"; data = /incbin/("i"); type = "ramdisk"; arch = "x86_64"; os = "linux";
      compression = "none"; hash-1 { algo = "crc32"; }; };
  };
  configurations { default = "c"; c { kernel = "kernel-1"; ramdisk = "ramdisk-1"; }; };
};
"""
    )
    tool("dtc", "device-tree-compiler")
    command = [tool("mkimage", "u-boot-tools"), *(["-E"] if external else []), "-f", "image.its", "image.itb"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder / "image.itb"


def external_fit(folder: Path, kernel: bytes, initrd: bytes) -> Path:
    return fit(folder, kernel, initrd, external=True)


def android(version: int) -> Maker:
    def make(folder: Path, kernel: bytes, initrd: bytes) -> Path:
        (folder / "k").write_bytes(kernel)
        (folder / "i").write_bytes(initrd)
        command: list[str | Path] = [
            tool("mkbootimg", "mkbootimg"),
            "--kernel",
            folder / "k",
            "--ramdisk",
            folder / "i",
        ]
        command += ["--header_version", str(version), "-o", folder / "boot.img"]
        subprocess.run(command, check=True, capture_output=True)
        return folder / "boot.img"

    return make


MAKERS: dict[str, Maker] = {
    "uki": uki,
    "uimage": uimage,
    "fit": fit,
    "external fit": external_fit,
    "android 0": android(0),
    "android 3": android(3),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("variant", ["affected", "fixed"])
def test_the_kernel_in_a_boot_loaders_file_is_judged(maker: str, variant: str, tmp_path: Path) -> None:
    found = judged(MAKERS[maker](tmp_path, image(), initramfs(variant)))
    (report,) = found.kernels
    assert not found.unreadable
    assert status_of(report) is Status(variant)
    assert report.member is not None


@pytest.mark.parametrize("maker", MAKERS)
def test_one_that_is_damaged_is_never_safe(maker: str, tmp_path: Path) -> None:
    """Cut off anywhere, its kernel exchanged for noise, or without its initramfs."""
    path = MAKERS[maker](tmp_path, image(), initramfs("fixed"))
    whole = path.read_bytes()
    cut = tmp_path / "cut"
    for end in (40, 64, 2100, 5000, len(whole) // 2, len(whole) - 100_000):
        cut.write_bytes(whole[:end])
        assert all(status_of(report) is Status.UNKNOWN for report in judged(cut).kernels)
    middle = len(image()) // 2
    place = whole.index(image()[middle : middle + 64])
    cut.write_bytes(whole[:place] + bytes(4096) + whole[place + 4096 :])
    assert all(status_of(report) is Status.UNKNOWN for report in judged(cut).kernels)
    alone = judged(MAKERS[maker](tmp_path, image(), b"nothing that is known"))
    assert {status_of(report) for report in alone.kernels} <= {Status.UNKNOWN}


@pytest.mark.parametrize("maker", MAKERS)
def test_every_cut_and_flip_is_read_or_refused(maker: str, tmp_path: Path) -> None:
    small = synthetic.bzimage(synthetic.pack(synthetic.vmlinux(1 << 12), Compression.GZIP))
    data = MAKERS[maker](tmp_path, small, b"x" * 64).read_bytes()
    for place in range(0, min(len(data), 6000), 37):
        flipped = bytearray(data)
        flipped[place] ^= 0x80
        for changed in (bytes(flipped), data[:place]):
            synthetic.refusal(lambda changed=changed: unwrap(memoryview(changed), "x"))  # type: ignore[misc]


def test_a_plain_image_is_no_bundle() -> None:
    assert unwrap(memoryview(image()), "x") is None
    assert unwrap(memoryview(stub().read_bytes()), "x") is None


def test_another_architecture_in_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(image())
    command = [
        tool("mkimage", "u-boot-tools"),
        "-A",
        "ppc",
        "-O",
        "linux",
        "-T",
        "kernel",
        "-C",
        "none",
        "-n",
        "a kernel",
    ]
    subprocess.run([*command, "-d", tmp_path / "k", tmp_path / "uImage"], check=True, capture_output=True)
    (report,) = judged(tmp_path / "uImage").kernels
    assert status_of(report) is Status.UNKNOWN
    assert "ppc" in report.findings[0].reason
