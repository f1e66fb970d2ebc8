# SPDX-License-Identifier: GPL-2.0-or-later
"""A package on offer is judged by the code in it, and by all packages of that kernel together."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from corpus import kernel_packages
from corpus.archive import cache_folder, fetch
from corpus.modules import faulty_module
from ejectable import host
from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.package_set import open_package_set
from ejectable.remedies.situation import Situation
from ejectable.remedies.upgrade.backend import Package
from ejectable.remedies.upgrade.installed import ready
from ejectable.remedies.upgrade.verify import judge_files, judge_packages
from tests.host.trees import LEGACY_DISK, Machine
from tests.one import the_first

pytestmark = pytest.mark.kernels
NEWEST = kernel_packages.RELEASES[2]


@pytest.fixture
def situation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Situation:
    """A machine with a legacy disk; its kernel is not asked for here."""
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))  # the kernels are where they were
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Machine(devices=[LEGACY_DISK], image=False, sysfs=True, running_build_id="00" * 20).build(tmp_path / "tree")
    return Situation(host.Root(tmp_path / "tree"), the_first())


def _parts(variant: str) -> dict[str, Path]:
    """kernel, kernel-core and kernel-modules-core, by name."""
    return {path.name.rpartition("-6.1.0")[0]: path for path in kernel_packages.rpms(NEWEST, variant)}


@pytest.mark.parametrize(("variant", "word"), [("affected", "affected"), ("fixed", "good")])
def test_image_and_module_of_two_packages_are_judged_together(situation: Situation, variant: str, word: str) -> None:
    parts = _parts(variant)
    judged = judge_files(situation, [parts["kernel-core"], parts["kernel-modules-core"]])
    assert (judged.word, judged.release) == (word, NEWEST)


def test_an_image_without_the_package_of_its_modules_is_unknown_never_fixed(situation: Situation) -> None:
    judged = judge_files(situation, [_parts("fixed")["kernel-core"]])
    assert judged.word == "unknown"


def test_the_module_of_another_release_does_not_speak_for_an_image(situation: Situation) -> None:
    other = {
        path.name.rpartition("-6.1.0")[0]: path
        for path in kernel_packages.rpms(kernel_packages.RELEASES[0], "affected")
    }
    judged = judge_files(situation, [_parts("fixed")["kernel-core"], other["kernel-modules-core"]])
    assert judged.word == "unknown"


def test_packages_without_an_image_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="none of these packages holds a kernel image: kernel-modules-core"):
        open_package_set([_parts("fixed")["kernel-modules-core"]])


@pytest.mark.parametrize("kept", [0.02, 0.6])
def test_a_package_that_was_cut_off_is_damaged_not_judged(situation: Situation, tmp_path: Path, kept: float) -> None:
    whole = kernel_packages.deb(NEWEST, "fixed").read_bytes()
    cut = tmp_path / "linux-image.deb"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DamagedInput, match="cut off"):
        judge_files(situation, [cut])


class _Archive:
    """Offers kernel-core and kernel-modules-core, and counts what is downloaded."""

    def __init__(self, variant: str, folder: Path) -> None:
        self.files = _parts(variant)
        self.folder = folder
        self.downloaded: list[str] = []

    def offer(self, name: str) -> Package:
        return Package(name, "6.1.0-56", "x86_64", digest=f"hash of {self.files[name].stat().st_size}")

    def download(self, packages: Sequence[Package]) -> list[Path]:
        self.folder.mkdir(exist_ok=True)
        self.downloaded += [package.name for package in packages]
        return [Path(shutil.copy(self.files[package.name], self.folder)) for package in packages]


def test_a_verdict_is_kept_by_version_and_hash(situation: Situation, tmp_path: Path) -> None:
    archive = _Archive("affected", tmp_path / "downloads")
    image, parts = archive.offer("kernel-core"), [archive.offer("kernel-modules-core")]
    first = judge_packages(situation, image, parts, archive.download)
    assert first is not None
    assert archive.downloaded == ["kernel-core", "kernel-modules-core"]
    again = judge_packages(situation.again(), image, parts, None)
    assert again is not None
    assert (again.word, again.why) == (first.word, first.why) == ("affected", again.why)

    # The same version, rebuilt: nobody knows it.
    other = Package(image.name, image.version, image.arch, digest="another hash")
    assert judge_packages(situation, other, parts, None) is None


def test_without_a_hash_nothing_is_kept(situation: Situation, tmp_path: Path) -> None:
    archive = _Archive("fixed", tmp_path / "downloads")
    image, parts = Package("kernel-core", "6.1.0-56", "x86_64"), [archive.offer("kernel-modules-core")]
    assert judge_packages(situation, image, parts, archive.download) is not None
    assert judge_packages(situation, image, parts, None) is None


def test_a_kernel_for_another_architecture_is_refused(situation: Situation, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a kernel for x86_64, found one for aarch64"):
        judge_files(situation, [fetch("linux-image-6.1.0-50-cloud-arm64", "arm64")])


def test_a_good_kernel_on_disk_asks_for_a_reboot_and_a_bad_one_does_not(situation: Situation) -> None:
    running = kernel_packages.RELEASES[0]
    tree = situation.root.path
    (tree / "boot").mkdir()
    (tree / f"boot/vmlinuz-{running}").write_bytes(b"")
    for variant, expected in (("affected", None), ("fixed", NEWEST)):
        folder = tree / f"lib/modules/{NEWEST}"
        shutil.rmtree(folder, ignore_errors=True)
        for package in _parts(variant).values():
            with subprocess.Popen(["rpm2cpio", str(package)], stdout=subprocess.PIPE) as outer:
                subprocess.run(["cpio", "-id", "--quiet"], cwd=tree, stdin=outer.stdout, check=True)
        shutil.copy(folder / "vmlinuz", tree / f"boot/vmlinuz-{NEWEST}")
        found, said = ready(situation.again(), running)
        assert (found.release if found else None) == expected
        assert bool(said) == (expected is None)
        if found:
            assert found.boots.release == NEWEST
            assert not found.next, "no boot loader says so: names are a guess"
    (tree / "boot/grub").mkdir()
    menu = f"menuentry 'Linux' {{\n\tlinux /boot/vmlinuz-{NEWEST} root=/dev/vda1\n}}\n"
    (tree / "boot/grub/grub.cfg").write_text(f"set default=0\n{menu}")
    found, _ = ready(situation.again(), running)
    assert found is not None
    assert found.boots.release == NEWEST
    assert found.next


def test_the_module_in_the_initramfs_is_what_counts(situation: Situation) -> None:
    running = kernel_packages.RELEASES[0]
    tree = situation.root.path
    (tree / "boot").mkdir()
    for package in _parts("fixed").values():
        with subprocess.Popen(["rpm2cpio", str(package)], stdout=subprocess.PIPE) as outer:
            subprocess.run(["cpio", "-id", "--quiet"], cwd=tree, stdin=outer.stdout, check=True)
    shutil.copy(tree / f"lib/modules/{NEWEST}/vmlinuz", tree / f"boot/vmlinuz-{NEWEST}")
    inside = tree / f"ram/usr/lib/modules/{NEWEST}/kernel/drivers/virtio"
    inside.mkdir(parents=True)
    for variant, good in (("fixed", True), ("affected", False)):
        shutil.copy(faulty_module(NEWEST, variant), inside)
        names = "\n".join(str(path.relative_to(tree / "ram")) for path in sorted((tree / "ram").rglob("*")))
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"],
            cwd=tree / "ram",
            input=names.encode(),
            check=True,
            capture_output=True,
        )
        (tree / f"boot/initrd.img-{NEWEST}").write_bytes(packed.stdout)
        found, said = ready(situation.again(), running)
        assert (found is not None) is good
        if not good:
            assert f"affected: /boot/initrd.img-{NEWEST}(usr/lib/modules" in " ".join(said)
    whole = (tree / f"boot/initrd.img-{NEWEST}").read_bytes()
    (tree / f"boot/initrd.img-{NEWEST}").write_bytes(whole[:5000])
    found, said = ready(situation.again(), running)
    assert found is None
    assert "could not be read" in " ".join(said)
