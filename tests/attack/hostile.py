# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees that a stranger made to hurt whoever looks at them: one from each seed, the same one each time.

Each has the outline of a root tree, and in every place where the tool looks a trap by chance: links out of the tree,
loops, FIFOs, devices, sockets, endless and sparse files, names with every byte, records and caches that pretend to be
ours.
"""

import base64
import functools
import json
import os
import random
import socket
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["PLACES", "build"]

RELEASE = "6.8.0-31-generic"
# Where the tool looks, in root trees and in folders of logs and kernels.
PLACES = (
    "etc/os-release",
    "etc/hostname",
    "etc/default/grub",
    "etc/fstab",
    "etc/modprobe.d/virtio.conf",
    "etc/sysctl.conf",
    "etc/sysctl.d/90-ejectable-panic.conf",
    "etc/apt/sources.list",
    "proc/version",
    "proc/cmdline",
    "proc/modules",
    "proc/kallsyms",
    "proc/kcore",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/panic_on_oops",
    "proc/sys/kernel/panic",
    "sys/kernel/notes",
    "sys/kernel/kexec_crash_loaded",
    "sys/kernel/btf/vmlinux",
    "sys/kernel/livepatch/patch/enabled",
    "sys/kernel/livepatch/patch/transition",
    "sys/module/virtio_pci/notes/.note.gnu.build-id",
    "sys/bus/virtio/devices/virtio0",
    "sys/bus/virtio/devices/virtio1/features",
    "sys/bus/pci/devices/0000:00:06.0",
    "sys/bus/pci/slots/6/address",
    "sys/class/dmi/id/sys_vendor",
    "sys/fs/pstore/dmesg-efi-1",
    f"boot/vmlinuz-{RELEASE}",
    f"boot/config-{RELEASE}",
    f"boot/initrd.img-{RELEASE}",
    "boot/grub/grub.cfg",
    "boot/grub/grubenv",
    "boot/loader/entries/a.conf",
    f"lib/modules/{RELEASE}/modules.dep",
    f"lib/modules/{RELEASE}/modules.builtin",
    f"lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko",
    f"lib/modules/{RELEASE}/build",
    "var/lib/dpkg/status",
    "var/lib/apt/lists/archive_dists_noble_Packages",
    "var/lib/ejectable",
    "var/lib/ejectable/changes/000001.json",
    "var/lib/ejectable/audit.log",
    "var/lib/ejectable/lock",
    "var/log/kern.log",
    "var/crash/202601010000/dmesg.202601010000",
    "Makefile",
    "drivers/virtio/virtio_pci_common.c",
)
ESCAPES = b"\x1b[2J\x1b]0;owned\x07\xc2\x9b31m\xe2\x80\xae\xe2\x80\xa8\r\n<b>&$(touch /tmp/owned)`id`;'\"\\"


OUTSIDE = ("/etc/shadow", "/proc/self/mem", "/dev/zero", "/root", "/", "../" * 40 + "etc/shadow")
BYTES = [byte for byte in range(1, 256) if byte != 0x2F]


def build(top: Path, seed: int) -> Path:
    """Make the tree of this number below `top`, which is made, and say where it is."""
    chance = random.Random(seed)
    top.mkdir(parents=True)
    for place in PLACES:
        trap = chance.choice(TRAPS)
        path = top / place
        with suppress(OSError):  # a parent became something else: that is a trap too
            path.parent.mkdir(parents=True, exist_ok=True)
            trap(path, chance)
    for _ in range(20):
        name = bytes(chance.choice(BYTES) for _ in range(chance.randrange(1, 200)))
        folder = chance.choice(("", "boot", "sys/bus/virtio/devices", "lib/modules", "var/log"))
        with suppress(OSError):
            (top / folder).mkdir(parents=True, exist_ok=True)
            Path(os.fsdecode(os.fsencode(top / folder) + b"/" + name)).write_bytes(ESCAPES)
    return top


def _garbage(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.randrange(20_000)))


def _escapes(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b"Linux version " + ESCAPES * 20)


def _empty(path: Path, _chance: random.Random) -> None:
    path.touch()


def _sparse(path: Path, chance: random.Random) -> None:
    with path.open("wb") as file:
        file.truncate(1 << chance.choice((30, 36, 42)))


def _link_out(path: Path, chance: random.Random) -> None:
    path.symlink_to(chance.choice(OUTSIDE))


def _loop(path: Path, _chance: random.Random) -> None:
    path.symlink_to(path.name)


def _up(path: Path, _chance: random.Random) -> None:
    path.symlink_to("..")


def _fifo(path: Path, _chance: random.Random) -> None:
    os.mkfifo(path)


def _device(path: Path, chance: random.Random) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, chance.choice((5, 7, 8))))  # zero, full, random
    except PermissionError:
        path.symlink_to("/dev/zero")


def _socket(path: Path, _chance: random.Random) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name[:100])
    finally:
        os.chdir(here)


def _folder(path: Path, _chance: random.Random) -> None:
    path.mkdir()


def _many(path: Path, _chance: random.Random) -> None:
    path.mkdir()
    for number in range(3000):
        (path / f"virtio{number}").touch()


def _deep(path: Path, _chance: random.Random) -> None:
    for _ in range(200):
        path.mkdir()
        path = path / "d"


def _record(path: Path, _chance: random.Random) -> None:
    """A record of changes that was never ours: of each shape that one could have."""
    content = base64.b64encode(b"* * * * * root touch /tmp/owned\n").decode()
    steps = [
        {"type": "command", "argv": ["true"], "undo": ["touch", "/tmp/owned"], "what": "\x1b[2J", "while_there": ""},
        {"type": "file", "path": "/../../../../tmp/owned", "before": content, "after": content, "mode_before": 0o4777},
        {"type": "file", "path": "/etc/cron.d/owned", "before": content, "after": None, "mode_before": 0o6755},
    ]
    record = {"number": 1, "remedy": "; touch /tmp/owned", "started": "x", "state": "open", "steps": steps}
    path.write_text(json.dumps(record))


def _zipped_bomb(path: Path, _chance: random.Random) -> None:
    path.write_bytes(_bomb())


@functools.cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(256)) + packer.flush()


def _long_line(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b"[    1.000000] " + b"RIP: 0010:" * 200_000)


def _half_json(path: Path, _chance: random.Random) -> None:
    path.write_bytes(b'{"a":[' * 50_000)


TRAPS: tuple[Callable[[Path, random.Random], None], ...] = (
    _garbage,
    _escapes,
    _empty,
    _sparse,
    _link_out,
    _loop,
    _up,
    _fifo,
    _device,
    _socket,
    _folder,
    _many,
    _deep,
    _record,
    _zipped_bomb,
    _long_line,
    _half_json,
)
