# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree captured from a guest that really ran: its sysfs and procfs, and the memory that holds its code.

The guest boots Debian's kernel with a virtio_pci.ko of ours, a modern disk and a legacy one, copies what a root tree
needs to the modern disk and powers off. /proc/kcore is too large to be copied whole: of its 128 TiB the kernel's text
and the first modules are kept, behind program headers that say so. Kept in the corpus' cache.
"""

import os
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

from corpus.archive import cache_folder, locked
from ejectable.lab.initramfs import Initramfs
from tests.host.trees import affected_module, boot_image, package_files

__all__ = ["captured"]

MIB = 1 << 20
VERSION = 3  # rises when the guest is asked for something else
MODULES = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_blk")
# Where the guest puts things on its disk, in MiB. Without KASLR the text begins at 0xffffffff81000000 and modules at
# 0xffffffffc0000000; their offsets in /proc/kcore are those without the sign (arch/x86/include/asm/pgtable_64.h,
# kc_vaddr_to_offset), behind the headers.
HEAD, KALLSYMS, BTF, MODULE_BTF, TEXT, AREA, TREE = 0, 1, 32, 48, 64, 128, 140
TEXT_AT, TEXT_SIZE = 0x7FFF81000000, 40 * MIB
AREA_AT, AREA_SIZE = 0x7FFFC0000000, 8 * MIB
INIT = f"""#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
for m in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  $bb insmod /m/$m.ko
done
n=0; while [ ! -b /dev/vdb ] && [ $n -lt 50 ]; do $bb sleep 0.1; n=$((n+1)); done
put() {{ $bb dd of=/dev/vda bs={MIB} seek=$1 conv=notrunc; }}
$bb dd if=/proc/kcore of=/dev/vda bs=4096 count=16 conv=notrunc
$bb cat /proc/kallsyms > /tmp/k; put {KALLSYMS} < /tmp/k
put {BTF} < /sys/kernel/btf/vmlinux
put {MODULE_BTF} < /sys/kernel/btf/virtio_pci
core() {{ $bb dd if=/proc/kcore of=/dev/vda bs=4096 conv=notrunc skip=$1 seek=$2 count=$3; }}
core {TEXT_AT // 4096} {TEXT * 256} {TEXT_SIZE // 4096}
core {AREA_AT // 4096} {AREA * 256} {AREA_SIZE // 4096}
cd /tmp; $bb mkdir -p t/sys/kernel t/sys/bus t/sys/module t/sys/devices t/proc/sys/kernel
for f in sys/kernel/osrelease sys/kernel/arch sys/kernel/panic sys/kernel/panic_on_oops version cmdline modules; do
  $bb cat /proc/$f > t/proc/$f
done
$bb cat /sys/kernel/notes > t/sys/kernel/notes
$bb cp -a /sys/bus/virtio /sys/bus/pci t/sys/bus/
$bb cp -a /sys/devices/pci0000:00 t/sys/devices/
$bb cp -a /sys/module/virtio_pci t/sys/module/
$bb tar cf t.tar -C t . ; put {TREE} < t.tar
$bb sync
$bb poweroff -f
"""


@cache
def captured(variant: str = "affected") -> Path:
    """The tree of a guest that ran Debian's kernel with this variant of virtio_pci.ko."""
    kept = cache_folder() / "captured" / f"{variant}-{VERSION}"
    with locked(f"captured-{variant}"):
        if not kept.exists():
            aside = kept.with_suffix(f".{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _capture(aside, variant)
            (aside / "tree").rename(kept)
            shutil.rmtree(aside)
    return kept


def _capture(folder: Path, variant: str) -> None:
    disk = folder / "disk.img"
    for image, size in ((disk, 180 * MIB), (folder / "legacy.img", MIB)):
        with image.open("wb") as file:
            file.truncate(size)
    (folder / "initrd").write_bytes(_initramfs(variant))
    command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-m", "700", "-nic", "none", "-no-reboot"]
    command += ["-display", "none", "-serial", "stdio", "-kernel", str(boot_image()), "-initrd", str(folder / "initrd")]
    command += ["-append", "console=ttyS0 nokaslr quiet panic=1"]
    for name, options in (("disk", "disable-legacy=on,disable-modern=off"), ("legacy", "disable-modern=on")):
        command += ["-drive", f"file={folder / name}.img,format=raw,if=none,id={name}"]
        command += ["-device", f"virtio-blk-pci,drive={name},{options}"]
    console = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL
    )
    with disk.open("rb") as file:
        raw = file.read()
    if not raw[TREE * MIB :].strip(b"\0"):
        raise AssertionError(f"the guest did not come through:\n{console.stdout[-2000:]}{console.stderr}")
    _lay_out(folder, raw)


def _initramfs(variant: str) -> bytes:
    root = Initramfs()
    root.file("bin/busybox", Path("/bin/busybox").read_bytes(), executable=True)
    for name, content in package_files(*(f"{module}.ko" for module in MODULES)).items():
        root.file(f"m/{name}", content)
    root.file("m/virtio_pci.ko", affected_module(variant).read_bytes())
    for folder in ("proc", "sys", "tmp", "dev"):
        root.folder(folder)
    root.device("dev/console", 5, 1)
    root.file("init", INIT.encode(), executable=True)
    return root.image


def _lay_out(folder: Path, raw: bytes) -> None:
    tree = folder / "tree"
    tree.mkdir()
    (folder / "t.tar").write_bytes(raw[TREE * MIB :])
    subprocess.run(["tar", "xf", str(folder / "t.tar"), "-C", str(tree)], check=True)
    # What init left behind was read by size; a text ends at its first zero.
    (tree / "proc/kallsyms").write_bytes(raw[KALLSYMS * MIB : BTF * MIB].split(b"\0")[0])
    (tree / "sys/kernel/btf").mkdir(parents=True)
    for name, at in (("vmlinux", BTF * MIB), ("virtio_pci", MODULE_BTF * MIB)):
        head, _, _, strings, size = struct.unpack_from("<5I", raw, at + 4)  # struct btf_header
        (tree / "sys/kernel/btf" / name).write_bytes(raw[at : at + head + strings + size])
    (tree / "proc/kcore").write_bytes(_core(raw))


def _core(raw: bytes) -> bytes:
    """A core file with what was kept of the memory, at the addresses that the guest's own headers give."""
    (table,) = struct.unpack_from("<Q", raw, 32)
    size, count = struct.unpack_from("<HH", raw, 54)
    headers, data = b"", b""
    for number in range(count):
        kind, flags, offset, address, _, _, length, _ = struct.unpack_from("<IIQQQQQQ", raw, table + number * size)
        for start, extent, place in ((TEXT_AT, TEXT_SIZE, TEXT), (AREA_AT, AREA_SIZE, AREA)):
            low, high = max(start, offset), min(start + extent, offset + length)
            if kind == 1 and low < high:
                part = raw[place * MIB + low - start : place * MIB + high - start]
                where = (4096 + len(data), address + low - offset, 0, len(part), len(part), 4096)
                headers += struct.pack("<IIQQQQQQ", kind, flags, *where)
                data += part
    head = bytearray(raw[:64])
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<H", head, 56, len(headers) // 56)
    return (bytes(head) + headers).ljust(4096, b"\0") + data
