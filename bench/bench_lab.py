# SPDX-License-Identifier: GPL-2.0-or-later
"""A run in the lab against what the same QEMU needs, with the same kernel, until its first line of user space."""

import subprocess
from collections.abc import Sequence

from bench.run import PYTHON, TOOL, Command, Group, Limit
from corpus.archive import cache_folder, fetch
from corpus.modules import faulty_module
from ejectable.lab.initramfs import Initramfs

__all__ = ["BENCHMARKS"]

RELEASE = "6.1.0-50-cloud-amd64"
STOCK = "6.1.0-56-amd64"
OPTIONS = ("--accel", "tcg", "--quiet", "--evidence", str(cache_folder() / "bench-evidence"))
INIT = b"#!/bin/busybox sh\nbusybox mount -t devtmpfs none /dev\necho first line >/dev/console\nbusybox sleep 1000\n"

# The reference: QEMU with that kernel and the least of an initramfs, ended at the first line of user space. The
# promise is "at most 1.3 times that, plus a second": the reference rests for the part of the second that makes the
# ratio say so. The lab's whole process is measured, Python's start and the reading of the kernel included.
ALONE = """
import os, signal, subprocess, sys, time
kernel, initramfs = sys.argv[1:]
signal.signal(signal.SIGALRM, lambda *_: sys.exit("no first line came"))
signal.alarm(120)
qemu = subprocess.Popen(["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine",
    "pc,usb=off,vmport=off,smbus=off", "-accel", "tcg,tb-size=256", "-m", "384M", "-smp", "1", "-serial", "stdio",
    "-kernel", kernel, "-initrd", initramfs, "-append",
    "console=ttyS0,115200 random.trust_cpu=on no_timer_check ignore_loglevel"],
    stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
try:
    said = b""
    while b"first line" not in said:  # which may come without its end
        piece = os.read(qemu.stdout.fileno(), 65536)
        assert piece, "QEMU ended"
        said = said[-20:] + piece
finally:
    qemu.kill()
time.sleep(1 / 1.3)
"""


def _unpacked(release: str) -> tuple[str, str]:
    """The kernel's package as a directory, and the path of its image: reading a package is not what is measured."""
    folder = cache_folder() / "unpacked" / release
    if not folder.exists():
        aside = folder.with_suffix(".part")
        aside.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", fetch(f"linux-image-{release}"), aside], check=True)
        aside.rename(folder)
    return str(folder), str(folder / "boot" / f"vmlinuz-{release}")


def _initramfs() -> str:
    root = Initramfs()
    root.file("init", INIT, executable=True)
    with open("/bin/busybox", "rb") as file:  # noqa: PTH123  (a path that is a constant)
        root.file("bin/busybox", file.read(), executable=True)
    root.device("dev/console", 5, 1)
    target = cache_folder() / "bench-initramfs"
    target.write_bytes(root.image)
    return str(target)


def _commands() -> Sequence[Command]:
    folder, image = _unpacked(RELEASE)
    modules = str(faulty_module(RELEASE).parent)
    lab = (TOOL, "lab", folder, *OPTIONS)
    return (
        Command("qemu to user space (+0.77 s)", (PYTHON, "-c", ALONE, image, _initramfs())),
        Command("lab, the guest dies", (*lab, "--modules", modules), expected=(2,)),
        Command("lab, the guest survives", lab),
    )


def _stock() -> Sequence[Command]:
    folder, _ = _unpacked(STOCK)
    lab = (TOOL, "lab", folder, *OPTIONS, "--mode", "legacy,modern")
    return (
        Command("lab, Debian's stock kernel", (TOOL, "lab", folder, *OPTIONS)),
        Command("lab, two runs, --jobs 1", (*lab, "--jobs", "1")),
        Command("lab, two runs, --jobs 2", (*lab, "--jobs", "2")),
    )


BENCHMARKS = (
    Group(
        "lab: start to verdict",
        _commands,
        (
            Limit("lab, the guest dies", ratio=1.3, than="qemu to user space (+0.77 s)"),
            Limit("lab, the guest survives", ratio=1.3, than="qemu to user space (+0.77 s)"),
        ),
    ),
    Group(
        "lab: Debian's stock kernel",
        _stock,
        (
            Limit("lab, Debian's stock kernel", seconds=10),
            Limit("lab, two runs, --jobs 2", ratio=0.75, than="lab, two runs, --jobs 1"),
        ),
    ),
)
