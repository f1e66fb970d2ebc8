# SPDX-License-Identifier: GPL-2.0-or-later
"""What is attacked: trees of machines, packages, initramfs, modules and folders, each affected, with a fixed twin.

The kernel is Debian's; its virtio_pci.ko is built from Debian's source with the faulty callback put back, or with the
fix. Nothing is copied that a hard link serves for: a transformation writes new files, never into old ones.
"""

import os
import shutil
from pathlib import Path

from corpus.kernel_packages import deb
from ejectable.lab.initramfs import Initramfs
from tests.attack.harness import Artefact
from tests.host.captured import captured
from tests.host.trees import LEGACY_DISK, RELEASE, Machine, affected_module, boot_image

__all__ = ["ARTEFACTS"]

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


def _link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return Path(target)


ARTEFACTS = (
    Artefact("running machine", "tree", _running),
    Artefact("mounted image", "tree", _mounted, code=3),
    Artefact("guest with memory", "tree", _guest),
    Artefact("package", "file", _package),
    Artefact("module", "file", _module),
    Artefact("initramfs", "file", _initramfs),
    Artefact("unpacked folder", "folder", _folder),
)
