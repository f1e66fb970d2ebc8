# SPDX-License-Identifier: GPL-2.0-or-later
"""Captured trees of machines, as sysfs and procfs lay them out (links included), with real kernels in /boot.

The layout follows what QEMU guests and cloud instances were seen to have; the kernel is Debian's, its virtio_pci.ko
is built from Debian's source with the faulty callback put back, or with the fix.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch, locked
from corpus.modules import faulty_module

__all__ = [
    "LEGACY_DISK",
    "MODERN_NIC",
    "NEWER",
    "RELEASE",
    "Device",
    "Machine",
    "affected_module",
    "boot_image",
    "notes",
    "package_files",
]

RELEASE = "6.1.0-50-cloud-amd64"
NEWER = "6.12.117+deb12-cloud-amd64"  # redesigned, virtio_pci built in


class Device(msgspec.Struct, frozen=True):
    """A virtio device to put into a tree. `bit_32`: None leaves the features file out."""

    slot: int
    virtio_id: int
    driver: str | None
    node: tuple[str, str] | None  # ("block", "vdb")
    bit_32: bool | None
    pci_id: int = 0x1001
    bus: str = "pci"
    hotplug: bool = True


LEGACY_DISK = Device(6, 2, "virtio_blk", ("block", "vdb"), bit_32=False)
MODERN_NIC = Device(7, 1, "virtio_net", ("net", "eth0"), bit_32=True, pci_id=0x1041)


class Machine(msgspec.Struct, frozen=True):
    """A machine to build a tree of."""

    devices: Sequence[Device] = (LEGACY_DISK, MODERN_NIC)
    module: Path | None = None  # virtio_pci.ko on disk
    loaded: Path | None = None  # the one that is loaded, where it is another
    image: bool = True
    waiting: bool = False  # a newer kernel is installed, and was not booted
    panic_on_oops: int | None = 1
    panic: int = 10
    kdump: int | None = 1
    command_line: str = "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1 ro quiet"
    running_build_id: str | None = None  # another one than the image's: upgraded and not booted
    version: str | None = None  # /proc/version; None: the image's own banner
    container: str | None = None
    sysfs: bool = True
    procfs: bool = True

    def build(self, root: Path) -> Path:
        """Write the tree; `root` is made."""
        root.mkdir(parents=True, exist_ok=True)
        _write(root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
        _write(root / "etc/hostname", "web-1\n")
        if self.procfs:
            self._proc(root)
        if self.sysfs:
            self._sys(root)
        if self.container:
            _write(root / "run/systemd/container", f"{self.container}\n")
        if self.image:
            self._boot(root)
        return root

    def _proc(self, root: Path) -> None:
        proc = root / "proc"
        _write(proc / "sys/kernel/osrelease", f"{RELEASE}\n")
        _write(proc / "sys/kernel/arch", "x86_64\n")
        _write(proc / "sys/kernel/hostname", "web-1\n")
        if self.version is None:
            _write(proc / "version", f"{boot_image_banner() if self.image else f'Linux version {RELEASE} (gcc)'}\n")
        elif self.version:
            _write(proc / "version", f"{self.version}\n")
        _write(proc / "cmdline", f"{self.command_line}\n")
        _write(proc / "modules", "virtio_pci 24576 0 - Live 0x0000000000000000\n")
        if self.panic_on_oops is not None:
            _write(proc / "sys/kernel/panic_on_oops", f"{self.panic_on_oops}\n")
            _write(proc / "sys/kernel/panic", f"{self.panic}\n")

    def _sys(self, root: Path) -> None:
        kernel = root / "sys/kernel"
        _write(kernel / "notes", notes(self.running_build_id or boot_image_build_id()))
        if self.kdump is not None:
            _write(kernel / "kexec_crash_loaded", f"{self.kdump}\n")
        loaded = self.loaded or self.module
        if loaded:
            _write(root / "sys/module/virtio_pci/notes/.note.gnu.build-id", notes(module_build_id(loaded)))
        _write(root / "sys/class/dmi/id/sys_vendor", "Alibaba Cloud\n")
        _write(root / "sys/class/dmi/id/product_name", "Alibaba Cloud ECS\n")
        (root / "sys/bus/pci/slots").mkdir(parents=True)
        # The host bridge, which every PC has.
        _write(root / "sys/devices/pci0000:00/0000:00:00.0/vendor", "0x8086\n")
        _link(root / "sys/bus/pci/devices/0000:00:00.0", root / "sys/devices/pci0000:00/0000:00:00.0")
        if self.devices:
            (root / "sys/bus/virtio/devices").mkdir(parents=True)
        for number, device in enumerate(self.devices):
            _device(root / "sys", number, device)

    def _boot(self, root: Path) -> None:
        (root / "boot").mkdir()
        shutil.copy(boot_image(), root / f"boot/vmlinuz-{RELEASE}")
        if self.waiting:
            shutil.copy(boot_image(NEWER), root / f"boot/vmlinuz-{NEWER}")
            (root / "boot/vmlinuz").symlink_to(f"vmlinuz-{NEWER}")
        if self.module:
            folder = root / f"usr/lib/modules/{RELEASE}/kernel/drivers/virtio"
            folder.mkdir(parents=True)
            shutil.copy(self.module, folder / self.module.name)
            # Merged /usr, as Debian has it: an absolute link, which must not lead out of the tree.
            (root / "lib").symlink_to("/usr/lib")


def _device(sys: Path, number: int, device: Device) -> None:
    if device.bus == "pci":
        address = f"0000:00:{device.slot:02x}.0"
        parent = f"devices/pci0000:00/{address}"
        _write(sys / parent / "device", f"{device.pci_id:#06x}\n")
        _write(sys / parent / "vendor", "0x1af4\n")
        _link(sys / "bus/pci/devices" / address, sys / parent)
        _link(sys / parent / "driver", sys / "bus/pci/drivers/virtio-pci")
        if device.hotplug:
            _write(sys / f"bus/pci/slots/{device.slot}/address", f"0000:00:{device.slot:02x}\n")
            _write(sys / f"bus/pci/slots/{device.slot}/power", "1\n")
    else:
        parent = f"devices/platform/virtio-mmio.{number}"
    bus = {"pci": "pci", "mmio": "platform"}.get(device.bus, device.bus)
    _link(sys / parent / "subsystem", sys / "bus" / bus)
    here = sys / parent / f"virtio{number}"
    _write(here / "device", f"{device.virtio_id:#06x}\n")
    _write(here / "modalias", f"virtio:d{device.virtio_id:08X}v00001AF4\n")
    if device.bit_32 is not None:
        bits = ["0"] * 64
        if device.driver:
            bits[28] = "1"
        bits[32] = "1" if device.bit_32 else "0"
        _write(here / "features", "".join(bits) + "\n")
    if device.driver:
        _link(here / "driver", sys / "bus/virtio/drivers" / device.driver)
    if device.node:
        (here / device.node[0] / device.node[1]).mkdir(parents=True)
    _link(sys / f"bus/virtio/devices/virtio{number}", here)


def notes(build_id: str) -> bytes:
    """ELF notes as /sys/kernel/notes has them: another one first, then the build-id."""
    other = struct.pack("<III", 4, 4, 0x100) + b"Xen\0" + b"\1\0\0\0"
    raw = bytes.fromhex(build_id)
    return other + struct.pack("<III", 4, len(raw), 3) + b"GNU\0" + raw


def package_files(*names: str, release: str = RELEASE) -> dict[str, bytes]:
    """Files of Debian's package by their names, unpacked once and kept beside it."""
    kept = cache_folder() / "extracted" / release
    with locked("extracted"):
        kept.mkdir(parents=True, exist_ok=True)
        if not all((kept / name).exists() for name in names):
            wanted = [f"*/{name}" for name in names]
            with subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", fetch(f"linux-image-{release}")], stdout=subprocess.PIPE
            ) as package:
                strip = ["--wildcards", "--transform=s,.*/,,", "-C", str(kept)]
                subprocess.run(["tar", "x", *strip, *wanted], stdin=package.stdout, check=True)
    return {name: (kept / name).read_bytes() for name in names}


@cache
def boot_image(release: str = RELEASE) -> Path:
    """Debian's vmlinuz."""
    name = f"vmlinuz-{release}"
    package_files(name, release=release)
    return cache_folder() / "extracted" / release / name


@cache
def _boot_kernel() -> tuple[str, str]:
    from ejectable.kernel.open import Kernel, open_kernels

    kernel = next(iter(open_kernels(boot_image())))
    assert isinstance(kernel, Kernel)
    assert kernel.build_id
    assert kernel.banner
    return kernel.build_id, kernel.banner


def boot_image_build_id() -> str:
    """The build-id of that kernel, as the kernel reader finds it."""
    return _boot_kernel()[0]


def boot_image_banner() -> str:
    """Its banner."""
    return _boot_kernel()[1]


@cache
def module_build_id(path: Path) -> str:
    """The build-id of a module."""
    from ejectable.kernel.module import Module

    found = Module(path.read_bytes(), name=path.name).elf.build_id
    assert found
    return found


def affected_module(variant: str = "affected") -> Path:
    """virtio_pci.ko for that kernel: `affected` as v6.8 had it, `fixed` as c8fae27d141a repaired it."""
    return faulty_module(RELEASE, variant)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent))
