# SPDX-License-Identifier: GPL-2.0-or-later
"""A module counts for the kernel that it was built with, and for no other."""

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.modules import DEFAULT_RELEASE, faulty_module
from ejectable.advisories import choose
from ejectable.assess.kernels import Judged, judge_path, status_of
from ejectable.intake import DEFAULT_LIMITS
from ejectable.intake.module_files import by_precedence, listed
from ejectable.model import DoubtKind, Status
from tests.kernel.synthetic import cpio_newc, deb, package_of

pytestmark = pytest.mark.kernels

IDS = tuple(choose(()))
R = DEFAULT_RELEASE
TREE = f"lib/modules/{R}"
USUAL = "kernel/drivers/virtio/virtio_pci.ko"


@functools.cache
def packaged(release: str, pattern: str) -> bytes:
    """A file out of Debian's package of a kernel."""
    package = package_of(release, "amd64")
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    command = ["tar", "-xO", "--wildcards", pattern]
    return subprocess.run(command, input=tar, capture_output=True, check=True).stdout


def image(release: str = R) -> bytes:
    """Debian's own image, whose virtio_pci is a module."""
    return packaged(release, "./boot/vmlinuz-*")


def module(variant: str) -> bytes:
    """virtio_pci.ko for that image, "affected" or "fixed"."""
    return faulty_module(R, variant=variant).read_bytes()


def lay(top: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top


def judged(path: Path) -> Judged:
    return judge_path(str(path), IDS, DEFAULT_LIMITS)


def words(path: Path) -> dict[str, Status]:
    """What is said of each kernel, by where it is below `path`."""
    found = {}
    for report in judged(path).kernels:
        name = report.member or report.path.removeprefix(f"{path}/")
        found[name] = status_of(report)
    return found


def doubts(path: Path) -> set[DoubtKind]:
    return {doubt.kind for report in judged(path).kernels for finding in report.findings for doubt in finding.doubts}


def test_two_builds_of_one_release_keep_their_own_modules(tmp_path: Path) -> None:
    files = {}
    for folder, variant in (("old", "affected"), ("new", "fixed")):
        files[f"{folder}/vmlinuz"] = image()
        files[f"{folder}/virtio_pci.ko"] = module(variant)
    assert words(lay(tmp_path, files)) == {"old/vmlinuz": Status.AFFECTED, "new/vmlinuz": Status.FIXED}
    installed = {f"{top}/boot/vmlinuz-{R}": image() for top in ("a", "b")}
    installed |= {f"a/{TREE}/{USUAL}": module("fixed"), f"b/{TREE}/{USUAL}": module("affected")}
    assert words(lay(tmp_path / "roots", installed)) == {
        f"a/boot/vmlinuz-{R}": Status.FIXED,
        f"b/boot/vmlinuz-{R}": Status.AFFECTED,
    }


def test_a_module_in_another_folder_makes_no_kernel_safe(tmp_path: Path) -> None:
    top = lay(tmp_path, {"images/vmlinuz": image(), "modules/virtio_pci.ko": module("fixed")})
    assert words(top) == {"images/vmlinuz": Status.UNKNOWN, "modules/virtio_pci.ko": Status.FIXED}
    assert doubts(top) == {DoubtKind.IDENTITY}
    lay(tmp_path, {"modules/virtio_pci.ko": module("affected")})
    assert words(top) == {"images/vmlinuz": Status.AFFECTED, "modules/virtio_pci.ko": Status.AFFECTED}


def test_of_two_modules_in_one_folder_nothing_tells_which_counts(tmp_path: Path) -> None:
    both = {"vmlinuz": image(), "virtio_pci.ko": module("fixed"), "virtio-pci.ko": module("affected")}
    found = words(lay(tmp_path, both))
    assert Status.FIXED not in {found["vmlinuz"], found.get("virtio-pci.ko")}
    assert Status.AFFECTED in found.values()
    lay(tmp_path, {"virtio-pci.ko": module("fixed")})
    assert words(tmp_path)["vmlinuz"] is Status.FIXED, "twice the same is no question"


def test_two_kernels_of_one_release_cannot_share_a_module(tmp_path: Path) -> None:
    """`make install` keeps the image before as vmlinuz-RELEASE.old, and the modules are only those of the last."""
    images = {f"boot/vmlinuz-{R}": image(), f"boot/vmlinuz-{R}.old": _another_build(image())}
    top = lay(tmp_path, images | {f"{TREE}/{USUAL}": module("fixed")})
    assert set(words(top).values()) == {Status.UNKNOWN}
    assert words(top / "boot" / f"vmlinuz-{R}") == {str(top / "boot" / f"vmlinuz-{R}"): Status.UNKNOWN}
    assert DoubtKind.AMBIGUOUS in doubts(top)
    lay(top, {f"{TREE}/{USUAL}": module("affected")})
    assert set(words(top).values()) == {Status.AFFECTED}
    lay(top, {f"boot/vmlinuz-{R}.old": image(), f"{TREE}/{USUAL}": module("fixed")})
    assert set(words(top).values()) == {Status.FIXED}, "a copy of the same build is no other kernel"


def _another_build(data: bytes) -> bytes:
    """The image again, as if it had been built anew: packed otherwise, with another build-id."""
    from ejectable.kernel.formats import recognise
    from ejectable.kernel.formats.elf import Elf
    from tests.kernel.synthetic import bzimage

    raw = bytearray(recognise(data, name="x").unpack(DEFAULT_LIMITS))
    build_id = bytes.fromhex(Elf(memoryview(raw), name="x").build_id or "")
    position = raw.find(build_id)
    raw[position : position + len(build_id)] = bytes(reversed(build_id))
    made = bytearray(bzimage(bytes(raw)))
    version = data[int.from_bytes(data[0x20E:0x210], "little") + 0x200 :].split(b"\0", 1)[0]
    made[0x600 : 0x600 + len(version) + 1] = version + b"\0"
    return bytes(made)


@pytest.mark.parametrize("wrap", [cpio_newc, deb], ids=["initramfs", "deb"])
def test_every_kernel_in_an_archive_is_judged(wrap: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    other = "6.1.0-54-cloud-amd64"
    files = {
        f"boot/vmlinuz-{other}": image(other),
        f"lib/modules/{other}/{USUAL}": packaged(other, "./lib/modules/*/virtio_pci.ko"),
        f"boot/vmlinuz-{R}": image(),
        f"{TREE}/{USUAL}": module("affected"),
    }
    path = tmp_path / "archive"
    path.write_bytes(wrap(files))
    assert words(path) == {f"boot/vmlinuz-{other}": Status.NOT_AFFECTED, f"boot/vmlinuz-{R}": Status.AFFECTED}
    # Modules alone, of two releases.
    path.write_bytes(wrap({name: data for name, data in files.items() if name.startswith("lib")}))
    reports = judged(path).kernels
    assert {report.release: status_of(report) for report in reports} == {
        other: Status.NOT_AFFECTED,
        R: Status.AFFECTED,
    }
    # One image, and modules of a release that has none.
    path.write_bytes(wrap({name: data for name, data in files.items() if name != f"boot/vmlinuz-{R}"}))
    assert sorted(status_of(report) for report in judged(path).kernels) == ["affected", "not_affected"]


def test_of_two_files_of_one_name_in_an_initramfs_the_last_counts(tmp_path: Path) -> None:
    """The kernel unpacks one archive over the other (init/initramfs.c)."""
    name = f"{TREE}/{USUAL}"
    path = tmp_path / "initrd"
    for variants, word in ((("fixed", "affected"), Status.AFFECTED), (("affected", "fixed"), Status.FIXED)):
        path.write_bytes(b"".join(cpio_newc({name: module(variant)}) for variant in variants))
        (report,) = judged(path).kernels
        assert status_of(report) is word


@pytest.mark.parametrize("place", ["updates", "extra", "weak-updates"])
@pytest.mark.parametrize("shape", ["folder", "initramfs"])
def test_modules_dep_says_which_module_is_loaded(place: str, shape: str, tmp_path: Path) -> None:
    two = {f"{place}/virtio_pci.ko": module("fixed"), USUAL: module("affected")}

    def found(dep: str | None) -> set[Status]:
        files = {f"boot/vmlinuz-{R}": image()} | {f"{TREE}/{name}": data for name, data in two.items()}
        files |= {f"{TREE}/modules.dep": f"{dep}: kernel/drivers/virtio/virtio.ko\n".encode()} if dep else {}
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        if shape == "folder":
            return set(words(lay(tmp_path / "x", files)).values())
        (tmp_path / "initrd").write_bytes(cpio_newc(files))
        return set(words(tmp_path / "initrd").values())

    assert found(USUAL) == {Status.AFFECTED}
    assert found(f"{place}/virtio_pci.ko") == {Status.FIXED}
    assert found(None) <= {Status.AFFECTED, Status.UNKNOWN}
    assert found("kernel/gone/virtio_pci.ko") <= {Status.AFFECTED, Status.UNKNOWN}


def test_the_order_of_modules_is_that_of_depmod() -> None:
    folders = ("updates/dkms", "extra", "kernel/drivers/virtio", "other", "weak-updates/a")
    files = [f"{folder}/virtio_pci.ko" for folder in folders]
    assert by_precedence(reversed(files), None, "virtio_pci") == files
    dep = b"kernel/fs/ext4.ko:\nweak-updates/a/virtio_pci.ko: " + USUAL.encode() + b"\n"
    assert by_precedence(files, dep, "virtio_pci")[0] == "weak-updates/a/virtio_pci.ko"
    assert listed(b"a/virtio-pci.ko.xz: b.ko\n", "virtio_pci") == "a/virtio-pci.ko.xz"
    assert listed(b"a/b.ko: x/virtio_pci.ko\n", "virtio_pci") is None


def test_a_kernel_of_unknown_release_is_not_made_safe_by_a_module(tmp_path: Path) -> None:
    nameless = image().replace(R.encode(), b"x" * len(R))  # in the boot header
    from ejectable.kernel.formats import recognise
    from tests.kernel.synthetic import bzimage

    raw = bytes(recognise(nameless, name="x").unpack(DEFAULT_LIMITS)).replace(R.encode(), b"x" * len(R))
    made = bytearray(bzimage(raw))
    made[0x600:0x640] = bytes(64)
    for variant, word in (("fixed", Status.UNKNOWN), ("affected", Status.AFFECTED)):
        top = lay(tmp_path, {"vmlinuz": bytes(made), "virtio_pci.ko": module(variant)})
        assert words(top)["vmlinuz"] is word
    assert DoubtKind.IDENTITY in doubts(tmp_path)


def test_a_configuration_that_breaks_off_has_nothing_off(tmp_path: Path) -> None:
    """Cut anywhere, or with every line about virtio gone: what is not in it is not known."""
    text = packaged(R, "./boot/config-*")
    for end in (0, len(text) // 2, text.index(b"CONFIG_VIRTIO_MENU"), len(text)):
        top = lay(tmp_path, {f"vmlinuz-{R}": image(), f"config-{R}": text[:end]})
        assert set(words(top).values()) == {Status.UNKNOWN}
    without = b"\n".join(line for line in text.split(b"\n") if b"VIRTIO" not in line)
    assert set(words(lay(tmp_path, {f"config-{R}": without})).values()) == {Status.UNKNOWN}
    # A file beside an image may be another kernel's: alone it makes nothing safe, whatever it says.
    off = text.replace(b"CONFIG_VIRTIO_PCI=m", b"# CONFIG_VIRTIO_PCI is not set")
    assert set(words(lay(tmp_path, {f"config-{R}": off})).values()) == {Status.UNKNOWN}
