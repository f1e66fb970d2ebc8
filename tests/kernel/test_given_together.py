# SPDX-License-Identifier: GPL-2.0-or-later
"""What is given together is read together: split packages, an initramfs, a pipe; and nothing outside of a folder is."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ejectable.intake import Compression
from ejectable.model import Status
from tests.kernel.synthetic import cpio_newc, deb, pack, vmlinux
from tests.kernel.test_provenance import TREE, USUAL, R, doubts, image, lay, module, words

pytestmark = pytest.mark.kernels

EXITS = {Status.AFFECTED: 2, Status.FIXED: 0, Status.UNKNOWN: 3}


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ejectable", "kernel", "--format", "json", *map(str, arguments)]
    return subprocess.run(command, input=stdin or b"", capture_output=True, check=False, timeout=120)


def statuses(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    found: Sequence[dict[str, Sequence[dict[str, str]]]] = json.loads(done.stdout)["kernels"]
    return [kernel["findings"][0]["status"] for kernel in found]


def split(folder: Path, variant: str, *, names: tuple[str, str] = ("image", "modules")) -> tuple[Path, Path]:
    """The image in one package and its modules in another, as Ubuntu and Debian 14 have it."""
    first, second = (folder / f"linux-{name}-{R}_6.1_amd64.deb" for name in names)
    folder.mkdir(parents=True, exist_ok=True)
    first.write_bytes(deb({f"boot/vmlinuz-{R}": image()}, package=f"linux-{names[0]}-{R}"))
    second.write_bytes(deb({f"{TREE}/{USUAL}": module(variant)}, package=f"linux-{names[1]}-{R}"))
    return first, second


@pytest.mark.parametrize(
    "names", [("image", "modules"), ("image-unsigned", "modules"), ("binary", "modules")], ids="+".join
)
@pytest.mark.parametrize("variant", ["affected", "fixed"])
def test_split_packages_decide_together(names: tuple[str, str], variant: str, tmp_path: Path) -> None:
    parts = split(tmp_path, variant, names=names)
    for order in (parts, parts[::-1]):
        done = run(*order)
        assert statuses(done) == [variant]
        assert done.returncode == EXITS[Status(variant)]
    assert set(words(tmp_path).values()) == {Status(variant)}, "in a folder too"
    assert words(parts[0]) == {f"boot/vmlinuz-{R}": Status.UNKNOWN}


def test_packages_of_two_builds_are_not_mixed(tmp_path: Path) -> None:
    first, _ = split(tmp_path / "a", "fixed")
    other = tmp_path / f"linux-modules-{R}_6.1_amd64.deb"
    mixed = deb({f"{TREE}/{USUAL}": module("fixed")}, package=f"linux-modules-{R}").replace(
        b"6.8.0-42.42", b"6.8.0-42.43"
    )
    other.write_bytes(mixed)
    done = run(first, other)
    assert sorted(statuses(done)) == ["fixed", "unknown"]
    assert done.returncode == 3


def test_a_metapackage_names_its_kernel(tmp_path: Path) -> None:
    path = tmp_path / "linux-image-amd64.deb"
    needs = "linux-image-6.1.0-50-amd64 (= 6.1.176-1), libc6"
    path.write_bytes(deb({"usr/share/doc/x/copyright": b""}, package="linux-image-amd64", depends=needs))
    done = run(path)
    assert done.returncode == 65
    (hint,) = json.loads(done.stdout)["next_steps"]
    assert hint == "It stands for linux-image-6.1.0-50-amd64: give that package."


@pytest.mark.parametrize("apart", [False, True], ids=["one folder", "two folders"])
@pytest.mark.parametrize("variant", ["affected", "fixed"])
def test_the_module_in_the_initramfs_is_the_one_that_is_loaded(variant: str, apart: bool, tmp_path: Path) -> None:
    """debian-installer's `linux` and `initrd.gz`; an installed initrd.img-RELEASE."""
    packed = pack(cpio_newc({f"{TREE}/{USUAL}": module(variant)}), Compression.GZIP, with_size=False)
    other = "boot" if apart else "."
    lay(tmp_path, {"linux": image(), f"{other}/initrd.gz": packed})
    done = run(tmp_path / "linux", tmp_path / other / "initrd.gz")
    assert statuses(done) == [variant, variant]
    assert done.returncode == EXITS[Status(variant)]


def test_an_initramfs_that_differs_from_the_disk_makes_nothing_safe(tmp_path: Path) -> None:
    def tree(disk: str, initramfs: bytes) -> Path:
        dep = f"{USUAL}:\n".encode()
        files = {f"boot/vmlinuz-{R}": image(), f"boot/initrd.img-{R}": initramfs, f"{TREE}/modules.dep": dep}
        return lay(tmp_path, files | {f"{TREE}/{USUAL}": module(disk)})

    def packed(variant: str) -> bytes:
        return cpio_newc({f"usr/{TREE}/{USUAL}": module(variant), f"usr/{TREE}/modules.dep": f"{USUAL}:\n".encode()})

    kernel = f"boot/vmlinuz-{R}"
    assert words(tree("fixed", packed("affected")))[kernel] is Status.AFFECTED
    assert words(tree("affected", packed("fixed")))[kernel] is Status.UNKNOWN
    assert words(tree("fixed", packed("fixed")))[kernel] is Status.FIXED
    assert words(tree("fixed", packed("affected")[:9000]))[kernel] is Status.UNKNOWN
    assert words(tree("fixed", cpio_newc({"init": b""})))[kernel] is Status.FIXED


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    """The folder is a tree of its own: /usr/lib in it is its own usr/lib, whatever lies outside."""
    outside = lay(tmp_path / "outside", {f"{TREE}/{USUAL}": module("fixed"), "vmlinuz": image()})
    top = lay(tmp_path / "top", {f"boot/vmlinuz-{R}": image()})
    (top / "lib").symlink_to(outside / "lib")
    assert words(top) == {f"boot/vmlinuz-{R}": Status.UNKNOWN}
    assert words(top / "boot") == {f"vmlinuz-{R}": Status.UNKNOWN}
    assert words(top / f"boot/vmlinuz-{R}") == {str(top / f"boot/vmlinuz-{R}"): Status.UNKNOWN}
    (top / "lib").unlink()
    (top / "lib").symlink_to("/usr/lib")
    lay(top, {f"usr/{TREE}/{USUAL}": module("affected")})
    assert words(top) == {f"boot/vmlinuz-{R}": Status.AFFECTED}
    # A module, an image, a configuration that are links out of it.
    loose = lay(tmp_path / "loose", {"vmlinuz": image()})
    (loose / "virtio_pci.ko").symlink_to(outside / TREE / USUAL)
    (loose / "vmlinuz-other").symlink_to(outside / "vmlinuz")
    assert words(loose) == {"vmlinuz": Status.UNKNOWN}


def test_boot_is_read_with_the_modules_of_its_machine(tmp_path: Path) -> None:
    top = lay(tmp_path, {f"boot/vmlinuz-{R}": image(), f"{TREE}/{USUAL}": module("affected")})
    assert set(words(top / "boot").values()) == {Status.AFFECTED}


def test_a_kernel_comes_through_a_pipe() -> None:
    for data, code in ((module("affected"), 2), (module("fixed"), 0), (module("affected")[:5000], 65), (b"", 65)):
        assert run("-", stdin=data).returncode == code
    package = deb({f"boot/vmlinuz-{R}": image(), f"{TREE}/{USUAL}": module("affected")})
    done = run("-", stdin=package)
    assert (statuses(done), json.loads(done.stdout)["kernels"][0]["path"]) == (["affected"], "standard input")


def test_a_kernel_comes_through_a_fifo_and_an_open_descriptor(tmp_path: Path) -> None:
    (tmp_path / "fixed.ko").write_bytes(module("fixed"))
    (tmp_path / "affected.ko").write_bytes(module("affected"))
    os.mkfifo(tmp_path / "fifo")
    ejectable = f"{sys.executable} -m ejectable kernel --jobs 2"
    for script, code in (
        (f"{ejectable} <(sleep 0.3; cat affected.ko)", 2),
        (f"{ejectable} <(cat fixed.ko) <(cat fixed.ko)", 0),
        (f"{ejectable} fixed.ko <(cat affected.ko)", 2),
        (f"{ejectable} /dev/stdin < fixed.ko", 0),
        (f"(cat affected.ko > fifo) & {ejectable} fifo", 2),
    ):
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False, timeout=120)
        assert done.returncode == code, (script, done.stderr)


def test_an_empty_name_is_no_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ejectable", "kernel", ""], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "variable" in done.stderr


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    from tests.intake.test_files import as_nobody

    top = lay(tmp_path, {"vmlinux": vmlinux(), "closed/vmlinux": vmlinux()})
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(0o755 if folder != Path("/tmp") else 0o1777)
    (top / "closed").chmod(0)
    with as_nobody():
        from ejectable.kernel import Unreadable, open_kernels

        found = list(open_kernels(top))
    assert [item.path for item in found if isinstance(item, Unreadable)] == [str(top / "closed")]
    assert len(found) == 2


def test_the_doubt_names_what_differs(tmp_path: Path) -> None:
    lay(tmp_path, {"vmlinuz": image(), "virtio_pci.ko": module("fixed"), "virtio-pci.ko": module("affected")})
    assert "ambiguous" in doubts(tmp_path)


@pytest.mark.parametrize("variant", ["affected", "fixed"])
def test_the_netboot_package_of_an_installer_holds_a_kernel(variant: str, tmp_path: Path) -> None:
    """debian-installer-12-netboot-amd64: the kernel beside the initramfs that has its modules."""
    folder = "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"
    packed = pack(cpio_newc({f"{TREE}/{USUAL}": module(variant)}), Compression.GZIP, with_size=False)
    path = tmp_path / "debian-installer-12-netboot-amd64.deb"
    files = {f"{folder}/boot-screens/f1.txt": b"x", f"{folder}/linux": image(), f"{folder}/initrd.gz": packed}
    path.write_bytes(deb(files, package="debian-installer-12-netboot-amd64"))
    assert words(path) == {f"{folder}/linux": Status(variant)}
    damaged = files | {f"{folder}/initrd.gz": packed[: len(packed) // 2]}
    path.write_bytes(deb(damaged, package="debian-installer-12-netboot-amd64"))
    assert words(path) == {f"{folder}/linux": Status.UNKNOWN}


def test_a_package_for_debuggers_holds_a_kernel_and_no_code_of_modules(tmp_path: Path) -> None:
    """linux-image-RELEASE-dbg: the whole vmlinux, and what `objcopy --only-keep-debug` leaves of a module."""
    (tmp_path / "whole.ko").write_bytes(module("affected"))
    kept = tmp_path / "kept.ko"
    subprocess.run(["objcopy", "--only-keep-debug", tmp_path / "whole.ko", kept], check=True)
    assert words(kept) == {str(kept): Status.UNKNOWN}
    path = tmp_path / "dbg.deb"
    debug = {f"usr/lib/debug/boot/vmlinux-{R}": unpacked(), f"usr/lib/debug/{TREE}/{USUAL}": kept.read_bytes()}
    path.write_bytes(deb(debug, package=f"linux-image-{R}-dbg"))
    assert words(path) == {f"usr/lib/debug/boot/vmlinux-{R}": Status.UNKNOWN}
    path.write_bytes(deb(debug | {f"{TREE}/{USUAL}": module("affected")}, package=f"linux-image-{R}-dbg"))
    assert words(path) == {f"usr/lib/debug/boot/vmlinux-{R}": Status.AFFECTED}


def unpacked() -> bytes:
    """The vmlinux in Debian's image."""
    from ejectable.intake import DEFAULT_LIMITS
    from ejectable.kernel.formats import recognise

    return bytes(recognise(image(), name="x").unpack(DEFAULT_LIMITS))


def test_two_builds_of_one_package_are_not_mixed(tmp_path: Path) -> None:
    """The same name, version and architecture twice, whole or split."""
    whole = []
    for folder, variant in (("old", "affected"), ("new", "fixed")):
        files = {f"boot/vmlinuz-{R}": image(), f"{TREE}/{USUAL}": module(variant)}
        lay(tmp_path, {f"{folder}/x.deb": deb(files, package=f"linux-image-{R}")})
        whole.append(tmp_path / folder / "x.deb")
    assert statuses(run(*whole)) == ["affected", "fixed"]
    assert statuses(run(tmp_path)) == ["fixed", "affected"]
    for folder, variant in (("old", "affected"), ("new", "fixed")):
        (tmp_path / folder / "x.deb").unlink()
        split(tmp_path / folder, variant)
    assert sorted(statuses(run(tmp_path))) == ["affected", "fixed"]


@pytest.mark.parametrize("name", ["vmlinuz.old", "vmlinuz_2", "kernel", "kernel8.img", "bzImage.bak", "linux-2"])
def test_a_kernel_under_another_name_is_found(name: str, tmp_path: Path) -> None:
    top = lay(tmp_path, {f"a/{name}": image(), "a/virtio_pci.ko": module("affected")})
    assert words(top) == {f"a/{name}": Status.AFFECTED}


def test_an_initramfs_that_belongs_to_no_image_is_judged_by_itself(tmp_path: Path) -> None:
    top = lay(tmp_path, {"vmlinuz": image(), "virtio_pci.ko": module("fixed")})
    lay(top, {"other/initrd.img": cpio_newc({f"{TREE}/{USUAL}": module("affected")})})
    assert words(top) == {"vmlinuz": Status.FIXED, "other/initrd.img": Status.AFFECTED}
