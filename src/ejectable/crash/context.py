# SPDX-License-Identifier: GPL-2.0-or-later
"""What earlier lines of a log say about the machine: which kernel, which virtio devices, driven how."""

import re
from collections.abc import Iterable

from ejectable.model import Event

__all__ = ["Context"]

BANNER = re.compile(r"Linux version (\d+\.\d+\S*)(.{0,400})")
LEGACY = re.compile(r"virtio-pci ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): .{0,40}leaving for legacy driver")
BLOCK = re.compile(r"virtio_blk (virtio\d+): \[(vd[a-z]+)\]")
NET = re.compile(r"virtio_net (virtio\d+) (\S+): renamed from|virtio_net (virtio\d+)")
MACHINES = (
    ("x86_64", "x86_64"),
    ("aarch64", "aarch64"),
    ("amd64", "x86_64"),
    ("riscv64", "riscv64"),
    ("ppc64le", "ppc64le"),
    ("s390x", "s390x"),
    ("loongarch64", "loongarch64"),
    ("armv7", "arm"),
    ("arm-linux", "arm"),
    ("i686", "i386"),
    ("i386", "i386"),
    ("arm64", "aarch64"),
)
MOST = 256


class Context:
    """Facts of the boot that a log is in. Forgotten when the kernel starts again."""

    def __init__(self) -> None:
        self.kernel: str | None = None
        self.arch: str | None = None
        self.legacy: list[str] = []  # PCI addresses of devices that the legacy driver took
        self.disks: dict[str, str] = {}  # virtio1 → vdb
        self.nets: dict[str, str] = {}

    def see(self, text: str) -> None:
        """Learn from a line outside of any report."""
        if "irtio" not in text and "Linux version" not in text:
            return
        if match := BANNER.search(text):
            self.__init__()  # type: ignore[misc]  # a new boot: nothing of the old one holds
            self.kernel = match.group(1)
            words = match.group(2) + match.group(1)
            self.arch = next((arch for sign, arch in MACHINES if sign in words), None)
        elif match := LEGACY.search(text):
            if len(self.legacy) < MOST and match.group(1) not in self.legacy:
                self.legacy.append(match.group(1))
        elif match := BLOCK.search(text):
            if len(self.disks) < MOST:
                self.disks[match.group(1)] = match.group(2)
        elif (match := NET.search(text)) and len(self.nets) < MOST:
            self.nets[match.group(1) or match.group(3)] = match.group(2) or ""

    def learn(self, event: Event) -> None:
        """Learn from a report what the log's beginning did not say."""
        self.kernel = self.kernel or event.kernel
        self.arch = self.arch or event.arch

    def device(self, functions: Iterable[str]) -> str | None:
        """The virtio device that a trace is about, as far as the log tells: by its driver, its disk, its slot."""
        kind = next((kind for name in functions for sign, kind in DRIVERS if name.startswith(sign)), None)
        if kind is None:
            return None
        said = kind
        if kind == "disk" and len(self.disks) == 1:
            name, node = next(iter(self.disks.items()))
            said = f"disk {node} ({name})"
        elif kind == "disk" and self.disks:
            said = f"disk, one of {', '.join(sorted(self.disks.values())[:8])}"
        elif kind == "network card" and len(self.nets) == 1:
            name, node = next(iter(self.nets.items()))
            said = f"network card {node or name} ({name})"
        if len(self.legacy) == 1:
            said += f" at {self.legacy[0]}, driven as a legacy device"
        elif self.legacy:
            said += f" at one of {', '.join(self.legacy[:8])}, which are driven as legacy devices"
        return said


# The drivers' functions that take a device away begin with these.
DRIVERS = (
    ("virtblk_", "disk"),
    ("virtnet_", "network card"),
    ("remove_vq_common", "network card"),
    ("virtballoon_", "balloon"),
    ("virtcons_", "console"),
    ("virtscsi_", "SCSI controller"),
    ("virtrng_", "random number generator"),
    ("virtio_vsock_", "socket device"),
    ("virtio_fs_", "file system"),
    ("p9_virtio_", "file system"),
    ("virtinput_", "input device"),
    ("virtsnd_", "sound card"),
)
