# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the corpus tell the truth? Boots what was built and unplugs a legacy disk: `affected` must die, the rest live.

    python -m corpus.proof [--only WORD]

A module boots under its stock kernel, a small kernel by itself. Needs QEMU, cpio and a static busybox.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus.archive import fetch
from corpus.builds import manifest_of
from corpus.kernels import CONFIGS, Kernel
from corpus.list import KERNELS, MODULES
from corpus.modules import Module
from corpus.trees import architecture_of, unpack_deb

__all__ = ["main", "unplug"]

INIT = """#!/bin/busybox sh
/bin/busybox mount -t sysfs sys /sys
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
	[ ! -f /mods/$module.ko ] || /bin/busybox insmod /mods/$module.ko || echo CANNOT LOAD $module
done
echo DRIVEN $(/bin/busybox cut -c33 /sys/bus/virtio/devices/virtio0/features)
for device in /sys/bus/virtio/devices/virtio0; do
	echo 1 > $(/bin/busybox readlink -f $device/..)/remove
done
[ -e /sys/bus/virtio/devices/virtio0 ] || echo SURVIVED
/bin/busybox poweroff -f
"""
MACHINES = {
    "amd64": ("qemu-system-x86_64", "-machine", "pc"),
    # `max` is slow under TCG: pointer authentication.
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"),
}
CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
# What a call of address 0 from vp_del_vqs() leaves on the console.
DEATHS = {"amd64": "RIP: 0010:0x0", "arm64": "pc : 0x0"}
STOCK_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_blk")
SECONDS = 120


def _cpio(folder: Path) -> bytes:
    """The folder as a compressed newc archive."""
    names = "\n".join(["."] + [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))])
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=folder, input=names.encode(), check=True, capture_output=True
    )
    return gzip.compress(done.stdout, 1)


def _fill(folder: Path, module: Module | None, arch: str) -> Path | None:
    """Fill an initramfs; the stock kernel's path where a module is to be loaded."""
    user_space = folder.with_name("user")
    unpack_deb(fetch("busybox-static", arch), user_space)
    busybox = next(user_space.glob("**/bin/busybox"))
    for name in ("bin", "sys", "dev", "mods"):
        (folder / name).mkdir()
    shutil.copy(busybox, folder / "bin")
    (folder / "init").write_text(INIT)
    (folder / "init").chmod(0o755)
    if module is None:
        return None
    stock = folder.with_name("stock")
    unpack_deb(fetch(f"linux-image-{module.release}", arch), stock)
    for name in STOCK_MODULES:
        shutil.copy(next(stock.rglob(f"{name}.ko")), folder / "mods")
    shutil.copy(module.path(), folder / "mods/virtio_pci.ko")
    return next((stock / "boot").glob("vmlinuz-*"))


def unplug(item: Module | Kernel) -> tuple[str, str]:
    """(`died`, `survived` or `no boot`, the console's text) of one unplug of a legacy disk under TCG."""
    arch = _arch(item)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        module = item if isinstance(item, Module) else None
        kernel = _fill(root, module, arch) or item.path()
        initrd = Path(scratch, "initrd")
        initrd.write_bytes(_cpio(root))
        disk = Path(scratch, "disk")
        disk.write_bytes(bytes(1 << 20))
        command = [
            *(*MACHINES[arch], "-accel", "tcg", "-m", "512", "-nographic", "-nic", "none", "-no-reboot"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", f"console={CONSOLES[arch]} panic=-1 oops=panic quiet"),
            *("-drive", f"if=none,id=d,file={disk},format=raw"),
            *("-device", "virtio-blk-pci,drive=d,disable-modern=on,disable-legacy=off"),
        ]
        try:
            text = subprocess.run(
                command, stdin=subprocess.DEVNULL, check=False, capture_output=True, timeout=SECONDS
            ).stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace")
    if "DRIVEN 0" not in text:
        return "no boot", text
    if "SURVIVED" in text:
        return "survived", text
    return ("died" if "vp_del_vqs" in text and DEATHS[arch] in text else "no boot"), text


def _arch(item: Module | Kernel) -> str:
    return architecture_of(item.release) if isinstance(item, Module) else CONFIGS[item.config].arch


def _chosen(only: str | None) -> Iterator[Module | Kernel]:
    everything: list[Module | Kernel] = [*MODULES, *KERNELS]
    for item in everything:
        if only and only not in item.name:
            continue
        if isinstance(item, Module):
            bootable = item.family == "6.1" and item.compression == "none" and item.legacy
        else:
            bootable = item.form in {"", "bzImage", "Image"} and item.legacy
        if bootable:
            yield item


def main(arguments: Sequence[str] | None = None) -> int:
    """Boot, unplug, compare; exit code 1 when one of them behaves otherwise than its manifest says."""
    parser = argparse.ArgumentParser(prog="proof", description=__doc__)
    parser.add_argument("--only", metavar="WORD", help="only what has WORD in its name")
    options = parser.parse_args(arguments)
    bad = 0
    for item in _chosen(options.only):
        path = item.path()
        result, text = unplug(item)
        expected = manifest_of(path.parent).expected
        right = result == ("died" if expected == "affected" else "survived")
        print(" " if right else "!", item.name, expected, result, flush=True)
        if not right:
            bad += 1
            print("\n".join(f"    {line}" for line in text.splitlines()[-25:]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
