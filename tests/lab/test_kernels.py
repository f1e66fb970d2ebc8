# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel is the same one out of a package of either kind, a folder or a boot directory: image, modules, config."""

import os
import subprocess
from pathlib import Path

import pytest

from ejectable.errors import BadInput
from ejectable.intake import Compression
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.modules import ModuleSet, needed
from tests.kernel import synthetic
from tests.lab.test_matrix import elf

RELEASE = "6.8.0-42-generic"


def image(note: bytes = b"") -> bytes:
    return synthetic.bzimage(synthetic.pack(synthetic.vmlinux(), Compression.GZIP) + note)


def members(release: str = RELEASE, note: bytes = b"") -> dict[str, bytes]:
    drivers = f"lib/modules/{release}/kernel/drivers"
    return {
        f"boot/config-{release}": f'CONFIG_HOTPLUG_PCI_ACPI=y\nCONFIG_LOCALVERSION="{release}"\n'.encode(),
        f"boot/vmlinuz-{release}": image(note),
        f"{drivers}/virtio/virtio.ko": elf(""),
        f"{drivers}/virtio/virtio_pci.ko.xz": synthetic.pack(elf("virtio", release.encode()), Compression.XZ),
        f"{drivers}/block/virtio_blk.ko": elf("virtio"),
        f"{drivers}/net/unlikely.ko": elf("virtio"),
        f"lib/modules/{release}/modules.builtin": b"kernel/drivers/char/hw_random/virtio-rng.ko\n",
        f"lib/modules/{release}/modules.dep": b"kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko\n",
    }


def lay_out(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def rpm(folder: Path) -> Path:
    root = lay_out(folder / "files", members())
    spec = folder / "kernel.spec"
    spec.write_text(
        "%global debug_package %{nil}\n%define __os_install_post %{nil}\nName: kernel-core\nVersion: 6.8.0\n"
        "Release: 42\nSummary: x\nLicense: GPL\nBuildArch: noarch\n%description\nx\n"
        f"%install\ncp -r {root}/. %{{buildroot}}/\n%files\n/\n"
    )
    command = [synthetic.tool("rpmbuild", "rpm"), "-bb", "--quiet", "--define", f"_topdir {folder}/top", str(spec)]
    subprocess.run(command, capture_output=True, check=True, env={**os.environ, "HOME": str(folder)})
    return next((folder / "top").rglob("*.rpm"))


def is_whole(kernel: GuestKernel) -> None:
    assert (kernel.arch, kernel.image) == ("x86_64", image())
    assert kernel.features.has("CONFIG_HOTPLUG_PCI_ACPI") is True
    assert kernel.modules.builtin == {"virtio_rng"}
    names = [module.name for module in needed(kernel.modules, ("virtio_pci", "virtio_blk", "unlikely"))]
    assert names == ["virtio", "virtio_pci", "virtio_blk", "unlikely"]


def test_out_of_a_deb(tmp_path: Path) -> None:
    (tmp_path / "linux.deb").write_bytes(synthetic.deb(members(), Compression.XZ))
    is_whole(open_kernel(str(tmp_path / "linux.deb")))


def test_out_of_an_rpm(tmp_path: Path) -> None:
    is_whole(open_kernel(str(rpm(tmp_path))))


def test_out_of_a_folder(tmp_path: Path) -> None:
    is_whole(open_kernel(str(lay_out(tmp_path, members()))))


def test_out_of_a_boot_directory_with_its_modules_where_they_are_installed(tmp_path: Path) -> None:
    lay_out(tmp_path, members())
    is_whole(open_kernel(str(tmp_path / f"boot/vmlinuz-{RELEASE}")))


def test_of_several_releases_the_newest_is_taken_with_its_own_modules(tmp_path: Path) -> None:
    older = RELEASE.replace("-42-", "-9-")
    lay_out(tmp_path, members(older, b"older"))
    is_whole(open_kernel(str(lay_out(tmp_path, members()))))
    kernel = open_kernel(str(tmp_path / f"boot/vmlinuz-{older}"))
    assert kernel.features.config["CONFIG_LOCALVERSION"] == older
    assert older.encode() in kernel.modules.load("virtio_pci").content


@pytest.mark.parametrize("packed", [True, False])
def test_modules_given_beside_it_hide_its_own(tmp_path: Path, packed: bool) -> None:
    root = lay_out(tmp_path / "root", members())
    other = {"a/virtio_pci.ko": elf("virtio", b"another one")}
    given = lay_out(tmp_path / "given", other)
    if packed:
        given = tmp_path / "given.deb"
        given.write_bytes(synthetic.deb(other, Compression.ZSTD))
    kernel = open_kernel(str(root), modules=str(given))
    assert b"another one" in kernel.modules.load("virtio_pci").content
    assert "virtio_blk" in kernel.modules
    assert kernel.replaced_virtio_pci == (str(given) if packed else str(given / "a/virtio_pci.ko"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="there is no module"):
        open_kernel(str(root), modules=str(tmp_path / "empty"))


def test_the_pages_of_an_arm64_kernel_choose_its_processor() -> None:
    flat = bytearray(synthetic.arm64_image())
    for flag, size in ((1, 4), (2, 16), (3, 64)):
        flat[24] = flat[24] & ~6 | flag << 1
        assert GuestKernel("Image", "aarch64", bytes(flat), ModuleSet()).page_kib == size
