# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of a guest that really ran, before and after ejectable_live.ko was loaded into it: with all of its memory.

The guest boots Debian's kernel with the faulty virtio_pci.ko, a modern disk and two legacy ones. It copies what a root
tree needs to the modern disk, loads the module, and copies its memory once more. Kept in the corpus' cache.
"""

import os
import shutil
import struct
import subprocess
from pathlib import Path

from corpus.archive import cache_folder, locked
from corpus.live_modules import for_debian
from ejectable.lab.initramfs import Initramfs
from tests.host.captured import MODULES
from tests.host.trees import RELEASE, affected_module, boot_image, package_files

__all__ = ["LEGACY", "MODERN", "captured", "copy_of"]

MIB = 1 << 20
VERSION = 2  # rises when the guest is asked for something else
RAM = 128 * MIB
MODERN, LEGACY = "0000:00:04.0", ("0000:00:05.0", "0000:00:06.0")
# Offsets in /proc/kcore without those of its headers: addresses below the sign (arch/x86/include/asm/pgtable_64.h,
# kc_vaddr_to_offset). Without KASLR the text is at 0xffffffff81000000, modules at 0xffffffffc0000000, and the direct
# map of the memory at 0xffff888000000000 (Documentation/arch/x86/x86_64/mm.rst). Then: size, and place on the disk.
AREAS = ((0x7FFF81000000, 40 * MIB, 64), (0x7FFFC0000000, 8 * MIB, 104), (0x088000000000, RAM, 112))
BTF, MODULE_BTF, TREE, SNAPSHOT = 1, 17, 33, 256  # MiB; a second snapshot begins behind the first
COPY = "\n".join(
    f"dd if=/proc/kcore of=/dev/vda bs=65536 conv=notrunc skip={start // 65536} seek=$((base + {place * 16}))"
    f" count={size // 65536}"
    for start, size, place in AREAS
)
INIT = f"""#!/bin/busybox sh
for a in mount insmod sleep dd cat cp tar mkdir sync poweroff; do alias $a="/bin/busybox $a"; done
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in {" ".join(MODULES[:4])} virtio_pci {MODULES[4]}; do insmod /m/$m.ko; done
n=0; while [ ! -b /dev/vdc ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
put() {{ dd of=/dev/vda bs={MIB} seek=$1 conv=notrunc; }}
snapshot() {{
base=$(($1 * 16))
dd if=/proc/kcore of=/dev/vda bs=65536 count=1 seek=$base conv=notrunc
{COPY}
cd /tmp; mkdir -p t/sys/kernel t/sys/bus t/sys/module t/sys/devices t/proc/sys/kernel/random
for f in sys/kernel/osrelease sys/kernel/version sys/kernel/arch sys/kernel/panic sys/kernel/panic_on_oops \
  sys/kernel/tainted sys/kernel/modules_disabled sys/kernel/random/boot_id version cmdline modules kallsyms; do
  cat /proc/$f > t/proc/$f
done
cat /sys/kernel/notes > t/sys/kernel/notes
cp -a /sys/bus/virtio /sys/bus/pci t/sys/bus/
cp -a /sys/devices/pci0000:00 t/sys/devices/
cp -a /sys/module/virtio_pci t/sys/module/
[ -e /sys/module/ejectable_live ] && cp -a /sys/module/ejectable_live t/sys/module/
tar cf t.tar -C t . ; put $(($1 + {TREE})) < t.tar; cd /
}}
put {BTF} < /sys/kernel/btf/vmlinux
put {MODULE_BTF} < /sys/kernel/btf/virtio_pci
snapshot 0
insmod /m/ejectable_live.ko
snapshot {SNAPSHOT}
sync
poweroff -f
"""


def captured(state: str = "repaired") -> Path:
    """The tree of the guest: `bare` before the module was loaded, `repaired` after."""
    kept = cache_folder() / "captured" / f"live-{VERSION}-{for_debian(RELEASE).parent.name[-16:]}"
    with locked("captured-live"):
        if not kept.exists():
            aside = kept.with_suffix(f".{os.getpid()}")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            raw = _run(aside)
            for number, name in enumerate(("bare", "repaired")):
                _lay_out(aside / name, raw, number * SNAPSHOT * MIB)
            for file in aside.glob("*.img"):
                file.unlink()
            aside.rename(kept)
    return kept / state


def copy_of(state: str, tree: Path, *, own_memory: bool = False) -> Path:
    """A copy that may be changed; its memory is shared, and only to be read, unless it is asked for."""
    kept = captured(state)
    shutil.copytree(kept, tree, symlinks=True, ignore=shutil.ignore_patterns("kcore"))
    subprocess.run(["chmod", "-R", "u+w", str(tree)], check=True)
    how = "--sparse=always" if own_memory or kept.stat().st_dev != tree.stat().st_dev else "--link"
    subprocess.run(["cp", how, str(kept / "proc/kcore"), str(tree / "proc/kcore")], check=True)
    return tree


def _run(folder: Path) -> memoryview:
    disk = folder / "disk.img"
    for image, size in ((disk, 2 * SNAPSHOT * MIB), (folder / "one.img", MIB), (folder / "two.img", MIB)):
        with image.open("wb") as file:
            file.truncate(size)
    root = Initramfs()
    root.file("bin/busybox", Path("/bin/busybox").read_bytes(), executable=True)
    for name, content in package_files(*(f"{module}.ko" for module in MODULES)).items():
        root.file(f"m/{name}", content)
    root.file("m/virtio_pci.ko", affected_module().read_bytes())
    root.file("m/ejectable_live.ko", for_debian(RELEASE).read_bytes())
    for name in ("proc", "sys", "tmp", "dev"):
        root.folder(name)
    root.device("dev/console", 5, 1)
    root.file("init", INIT.encode(), executable=True)
    (folder / "initrd.img").write_bytes(root.image)
    command = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc", "-m", str(RAM // MIB), "-nic", "none"]
    command += ["-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", str(boot_image())]
    command += ["-initrd", str(folder / "initrd.img"), "-append", "console=ttyS0 nokaslr quiet panic=1 no_timer_check"]
    disks = (
        ("disk", "disable-legacy=on,disable-modern=off", 4),
        ("one", "disable-modern=on", 5),
        ("two", "disable-modern=on", 6),
    )
    for name, options, slot in disks:
        command += ["-drive", f"file={folder / name}.img,format=raw,if=none,id={name}"]
        command += ["-device", f"virtio-blk-pci,drive={name},{options},addr={slot}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL)
    raw = memoryview(disk.read_bytes())
    if not bytes(raw[(SNAPSHOT + TREE) * MIB :][:512]).strip(b"\0"):
        raise AssertionError(f"the guest did not come through:\n{done.stdout[-3000:]}{done.stderr}")
    return raw


def _lay_out(tree: Path, raw: memoryview, base: int) -> None:
    tree.mkdir()
    archive = tree / "t.tar"
    archive.write_bytes(raw[base + TREE * MIB : base + AREAS[0][2] * MIB])
    subprocess.run(["tar", "xf", str(archive), "-C", str(tree)], check=True)
    archive.unlink()
    (tree / "sys/kernel/btf").mkdir(parents=True)
    for name, at in (("vmlinux", BTF * MIB), ("virtio_pci", MODULE_BTF * MIB)):
        head, _, _, strings, size = struct.unpack_from("<5I", raw, at + 4)  # struct btf_header
        (tree / "sys/kernel/btf" / name).write_bytes(raw[at : at + head + strings + size])
    _core(tree / "proc/kcore", raw, base)


def _core(path: Path, raw: memoryview, base: int) -> None:
    """A core file with what was kept of the memory, at the addresses that the guest's own headers give."""
    (table,) = struct.unpack_from("<Q", raw, base + 32)
    size, count = struct.unpack_from("<HH", raw, base + 54)
    headers = b""
    with path.open("wb") as file:
        file.seek(4096)
        for number in range(count):
            kind, flags, offset, address, _, _, length, _ = struct.unpack_from(
                "<IIQQQQQQ", raw, base + table + number * size
            )
            for start, extent, place in AREAS:
                low, high = max(start, offset), min(start + extent, offset + length)
                if kind == 1 and low < high:
                    at, part = file.tell(), raw[base + place * MIB + low - start : base + place * MIB + high - start]
                    where = (at, address + low - offset, 0, len(part), len(part), 4096)
                    headers += struct.pack("<IIQQQQQQ", kind, flags, *where)
                    for position in range(0, len(part), 4096):
                        page = part[position : position + 4096]
                        if any(page):
                            file.write(page)
                        else:
                            file.seek(len(page), os.SEEK_CUR)
        file.truncate(file.tell())
        head = bytearray(raw[base : base + 64])
        struct.pack_into("<Q", head, 32, 64)
        struct.pack_into("<H", head, 56, len(headers) // 56)
        file.seek(0)
        file.write((bytes(head) + headers).ljust(4096, b"\0"))
