# SPDX-License-Identifier: GPL-2.0-or-later
"""An installed kernel is judged with the module that a boot of it loads, and anew when what was read changes."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.archive import cache_folder
from ejectable.cli.app import run
from tests.host.trees import RELEASE, Machine, affected_module
from tests.intake.test_files import as_nobody, public_folder
from tests.one import ONE

__all__ = ["public_folder"]

pytestmark = pytest.mark.kernels
MODULE = f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _image(root: Path, variant: str = "fixed") -> Path:
    """A mounted image: nothing runs in it."""
    return Machine(module=affected_module(variant), sysfs=False, procfs=False).build(root)


def _check(tree: Path) -> int:
    """The exit code. Of an image, whose devices cannot be seen, the kernel's word is all there is: 0 or 3."""
    return run(["check", *ONE, "--root", str(tree), "--quiet"])


def _says(tree: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    run(["check", *ONE, "--root", str(tree)])
    shown = capsys.readouterr().out
    return "affected" if "CVE-2024-42134 affected" in " ".join(shown.split()) else shown.partition(" ")[0].lower()


def _replace(tree: Path) -> None:
    """The module's content, and nothing else of what a file system tells: whoever makes an image chooses its times."""
    there = tree / MODULE
    before = there.stat()
    bad = affected_module().read_bytes()
    with there.open("r+b") as file:
        file.truncate(0)
        file.write(bad)
    os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))


def _modules_dep(tree: Path) -> None:
    other = tree / f"usr/lib/modules/{RELEASE}/weak-updates/virtio_pci.ko"
    other.parent.mkdir()
    shutil.copy(affected_module(), other)
    (tree / f"usr/lib/modules/{RELEASE}/modules.dep").write_text("weak-updates/virtio_pci.ko:\n")


def _new_update(tree: Path) -> None:
    other = tree / f"usr/lib/modules/{RELEASE}/updates/virtio_pci.ko"
    other.parent.mkdir()
    shutil.copy(affected_module(), other)


def _initramfs(tree: Path, module: bytes, *, place: str = "usr/lib/modules") -> None:
    """Put an initramfs with this module beside the image: microcode first, as distributions have it."""
    ram = tree / "ram"
    there = ram / place / RELEASE / "kernel/drivers/virtio/virtio_pci.ko"
    there.parent.mkdir(parents=True)
    there.write_bytes(module)
    (ram / "init").write_text("#!/bin/sh\n")
    early = _cpio(tree, {"kernel/x86/microcode/GenuineIntel.bin": b"\1" * 64})
    (tree / f"boot/initrd.img-{RELEASE}").write_bytes(early + _packed(ram))
    shutil.rmtree(ram)


def _cpio(folder: Path, files: dict[str, bytes]) -> bytes:
    top = folder / "early"
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True)
        (top / name).write_bytes(content)
    packed = _packed(top)
    shutil.rmtree(top)
    return packed


def _packed(top: Path) -> bytes:
    names = "\n".join(str(path.relative_to(top)) for path in sorted(top.rglob("*")))
    return subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=top, input=names.encode(), check=True, capture_output=True
    ).stdout


@pytest.mark.parametrize("change", [_replace, _modules_dep, _new_update, lambda t: _initramfs(t, _bad())])
def test_a_kept_verdict_does_not_outlive_what_it_was_read_from(
    change: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = _image(tmp_path / "tree")
    assert [_check(tree), _check(tree)] == [0, 0]
    change(tree)
    assert _check(tree) == 3
    assert _says(tree, capsys) == "affected"


def _bad() -> bytes:
    return affected_module().read_bytes()


def test_the_initramfs_is_what_a_boot_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _image(tmp_path / "bad-inside")
    _initramfs(tree, _bad())
    assert _says(tree, capsys) == "affected"
    tree = _image(tmp_path / "bad-on-disk", "affected")
    _initramfs(tree, affected_module("fixed").read_bytes())
    assert _says(tree, capsys) == "affected", "an initramfs may leave it to the disk"
    tree = _image(tmp_path / "both-fixed")
    _initramfs(tree, affected_module("fixed").read_bytes())
    assert _says(tree, capsys) == "fixed"


@pytest.mark.parametrize("damage", ["cut", "unknown-form", "not-a-module"])
def test_an_initramfs_that_cannot_be_read_leaves_no_safe_word(damage: str, tmp_path: Path) -> None:
    tree = _image(tmp_path / "tree")
    there = tree / f"boot/initrd.img-{RELEASE}"
    _initramfs(tree, b"no module" if damage == "not-a-module" else _bad())
    whole = there.read_bytes()
    if damage == "cut":
        there.write_bytes(whole[: len(whole) // 2])
    elif damage == "unknown-form":
        there.write_bytes(_cpio(tmp_path, {"kernel/x86/microcode/AuthenticAMD.bin": b"\1"}) + b"some new form" * 99)
    assert _check(tree) == 3


def test_an_initramfs_that_only_root_may_read_is_permission(
    public_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(public_folder / "cache"))
    tree = _image(public_folder / "tree")
    _initramfs(tree, _bad())
    (tree / f"boot/initrd.img-{RELEASE}").chmod(0o600 if os.geteuid() == 0 else 0)
    with as_nobody():
        code = run(["check", *ONE, "--root", str(tree), "--format", "json"])
    assert code == 3
    assert '"permission"' in capsys.readouterr().out


@pytest.mark.parametrize("left", ["empty", "gone"])
def test_a_tree_of_a_machine_that_ran_is_not_taken_for_an_image(
    left: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel that would boot is fixed; which one ran is what tar did not save."""
    tree = Machine(module=affected_module("fixed")).build(tmp_path / "tree")
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 0
    (tree / "sys/kernel/notes").unlink()
    for path in list((tree / "proc").rglob("*")):
        if path.is_file():
            path.write_bytes(b"") if left == "empty" else path.unlink()
    capsys.readouterr()
    assert run(["check", *ONE, "--root", str(tree)]) == 3
    shown = " ".join(capsys.readouterr().out.split())
    assert ("as tar saves the files of /proc" if left == "empty" else "There is no /proc/version") in shown


def test_the_initramfs_of_a_kernel_whose_loaded_module_is_known_does_not_matter(tmp_path: Path) -> None:
    tree = Machine(module=affected_module("fixed"), devices=()).build(tmp_path / "tree")
    _initramfs(tree, b"no module")
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 0


@pytest.mark.parametrize("release", ["6.1.0-50-clo", "garbage", "6.12.0"])
def test_the_loaded_module_counts_whatever_the_release_is_called(release: str, tmp_path: Path) -> None:
    tree = Machine(module=affected_module("fixed"), loaded=affected_module()).build(tmp_path / "tree")
    (tree / "proc/sys/kernel/osrelease").write_text(f"{release}\n")
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 3


def test_a_loaded_module_that_is_only_in_the_initramfs_is_read_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Machine(module=affected_module("fixed"), loaded=affected_module()).build(tmp_path / "tree")
    _initramfs(tree, _bad())
    assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 2
    assert "would panic" in capsys.readouterr().out
