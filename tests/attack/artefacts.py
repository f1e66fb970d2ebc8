# SPDX-License-Identifier: GPL-2.0-or-later
"""What is attacked: trees of machines, packages, initramfs, modules and folders, each affected, with a fixed twin.

The module is Debian's virtio_pci.ko, built from Debian's source with the faulty callback put back, or with the fix. The
image beside it is Debian's, or, in what is small, one of a few KiB with the same release: every pair of transformations
is tried on those. Nothing is copied that a hard link serves for: a transformation writes new files, never into old.
"""

import os
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

from corpus.kernel_packages import deb
from ejectable.intake import Compression
from ejectable.lab.initramfs import Initramfs
from tests.attack.harness import Artefact
from tests.attack.reports import NEAR_MISS, reports, shows
from tests.crash.fixtures import FIXTURES, load
from tests.host.captured import captured
from tests.host.trees import LEGACY_DISK, RELEASE, Machine, affected_module, boot_image
from tests.kernel import synthetic

__all__ = ["ARTEFACTS"]

BANNER = f"Linux version {RELEASE} (debian-kernel@lists.debian.org) (gcc-12 12.2.0) #1 SMP PREEMPT_DYNAMIC Debian"
# Each another way to fall, on another architecture, or in the words of another time.
LOGS = (
    "defect-disk-acpi-eject-printk", "defect-arm64-lab", "defect-kcfi", "defect-fineibt", "defect-probe-path",
    "defect-wording-3.10", "defect-interleaved", "defect-nic-virtio-unbind-login",
)  # fmt: skip
SMALL_LOGS = LOGS[:3]

MODULE = f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko"


def _running(folder: Path, variant: str) -> Path:
    """A captured tree of a machine that runs, with one legacy disk."""
    return Machine(module=affected_module(variant), devices=(LEGACY_DISK,)).build(folder / "machine")


def _mounted(folder: Path, variant: str) -> Path:
    """A mounted image: nothing runs in it, and it would boot that kernel."""
    machine = Machine(module=affected_module(variant), devices=(), sysfs=False, procfs=False)
    return machine.build(folder / "image")


def _guest(folder: Path, variant: str) -> Path:
    """The tree of a guest that really ran: its own sysfs, procfs and memory, and no kernel file."""
    target = folder / "guest"
    shutil.copytree(captured(variant), target, symlinks=True, copy_function=_link_or_copy)
    return target


def _package(folder: Path, variant: str) -> Path:
    """Debian's package with the module in it."""
    return _link_or_copy(deb(RELEASE, variant), folder / f"linux-image-{RELEASE}.deb")


def _module(folder: Path, variant: str) -> Path:
    """The module alone."""
    return _link_or_copy(affected_module(variant), folder / "virtio_pci.ko")


def _initramfs(folder: Path, variant: str) -> Path:
    """An initramfs with the module, as initramfs-tools lays it out."""
    root = Initramfs()
    root.file(MODULE, affected_module(variant).read_bytes())
    path = folder / f"initrd.img-{RELEASE}"
    path.write_bytes(root.image)
    return path


def _folder(folder: Path, variant: str) -> Path:
    """An image with its modules, as an unpacked package has them."""
    target = folder / "unpacked"
    (target / "boot").mkdir(parents=True)
    _link_or_copy(boot_image(), target / f"boot/vmlinuz-{RELEASE}")
    (target / MODULE).parent.mkdir(parents=True)
    _link_or_copy(affected_module(variant), target / MODULE)
    return target


@cache
def _small_image() -> bytes:
    """A bzImage of a few KiB that says it is the same kernel; its virtio_pci is a module."""
    config = b"CONFIG_VIRTIO_PCI=m\nCONFIG_VIRTIO_PCI_LEGACY=y\n"
    bare = synthetic.vmlinux(8192, config, banner=f"{BANNER}\n")
    return synthetic.bzimage(synthetic.pack(bare, Compression.GZIP), banner=BANNER)


def _small_machine(folder: Path, variant: str, *, runs: bool = True) -> Path:
    devices = (LEGACY_DISK,) if runs else ()
    top = Machine(
        image=False, module=affected_module(variant), devices=devices, version=BANNER,
        running_build_id=synthetic.BUILD_ID, sysfs=runs, procfs=runs,
    ).build(folder / "machine")  # fmt: skip
    (top / "boot").mkdir()
    (top / f"boot/vmlinuz-{RELEASE}").write_bytes(_small_image())
    (top / MODULE).parent.mkdir(parents=True)
    _link_or_copy(affected_module(variant), top / MODULE)
    (top / "lib").symlink_to("/usr/lib")
    return top


def _small_mounted(folder: Path, variant: str) -> Path:
    return _small_machine(folder, variant, runs=False)


def _small_folder(folder: Path, variant: str) -> Path:
    """An image with its modules, as an unpacked package has them."""
    top = folder / "unpacked"
    (top / "boot").mkdir(parents=True)
    (top / f"boot/vmlinuz-{RELEASE}").write_bytes(_small_image())
    (top / MODULE).parent.mkdir(parents=True)
    _link_or_copy(affected_module(variant), top / MODULE)
    return top


def _small_package(folder: Path, variant: str) -> Path:
    """A package with the image and the module."""
    files = {f"boot/vmlinuz-{RELEASE}": _small_image(), MODULE: affected_module(variant).read_bytes()}
    path = folder / f"linux-image-{RELEASE}.deb"
    path.write_bytes(synthetic.deb(files, package=f"linux-image-{RELEASE}"))
    return path


def _log(name: str) -> Callable[[Path, str], Path]:
    def build(folder: Path, variant: str) -> Path:
        path = folder / "dmesg.txt"
        if variant == "affected":
            path.write_bytes(reports()[name].encode("utf-8", "replace"))
        else:
            path.write_bytes(load(next(one for one in FIXTURES if one.stem == NEAR_MISS)).log)
        return path

    return build


def _shows(path: Path) -> bool:
    data = path.read_bytes()
    return re.match(rb"\x1f\x8b|PK|\xfd7z|BZh|\x28\xb5|.{257}ustar", data, re.DOTALL) is not None or shows(data)


def _link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return Path(target)


ARTEFACTS = (
    Artefact("running machine", "tree", _running, small=False),
    Artefact("mounted image", "tree", _mounted, code=3, small=False),
    Artefact("guest with memory", "tree", _guest, small=False),
    Artefact("package", "file", _package, small=False),
    Artefact("unpacked folder", "folder", _folder, small=False),
    Artefact("small machine", "tree", _small_machine),
    Artefact("small mounted image", "tree", _small_mounted, code=3),
    Artefact("module", "file", _module),
    Artefact("initramfs", "file", _initramfs),
    Artefact("small package", "file", _small_package),
    Artefact("small unpacked folder", "folder", _small_folder),
    *(Artefact(f"log {name[7:]}", "log", _log(name), small=name in SMALL_LOGS, shows=_shows) for name in LOGS),
)
