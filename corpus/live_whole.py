# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix live` as a person runs it, from end to end, in a guest with a real user space: check, apply, unplug,
undo, --persist, reboot, a crash, and no loading after it.

The guest is Debian 12 (debootstrap: systemd, python3, gcc, make, dkms) with Debian's 6.1 cloud kernel, whose
virtio_pci.ko has the faulty callback put back, its headers, and ejectable installed from its wheel. The story is told
by whole_story.sh inside of it; what only the other side can do (plug, pull, reset) it asks us for on its console.

    make live-whole        about a quarter of an hour under emulation; needs root, for debootstrap
"""

import hashlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from corpus.archive import SUITE, cache_folder, fetch, locked, mirror
from corpus.live_table import WHOLE, source_state
from corpus.modules import faulty_module
from corpus.trees import unpack_deb
from ejectable.errors import Missing
from ejectable.lab.busybox import busybox
from ejectable.lab.initramfs import Initramfs
from ejectable.lab.kernels import open_kernel
from ejectable.lab.modules import needed

__all__ = ["RELEASE", "base", "install_ejectable", "make_disk", "run"]

RELEASE = "6.1.0-50-cloud-amd64"

PACKAGES = (
    "python3,kmod,gcc-12,make,binutils,libc6-dev,systemd-sysv,udev,dkms,util-linux,procps"
    # What linux-kbuild's programs need: its package is unpacked, not installed.
    ",libelf1,libssl3,zlib1g"
)
STORY = Path(__file__).with_name("whole_story.sh")
LIMIT_S = 3600.0
INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t devtmpfs dev /dev
while read -r m; do $bb insmod "/m/$m.ko"; done </m/order
n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do $bb sleep 0.1; n=$((n+1)); done
$bb mount -t ext4 /dev/vda /root
$bb mount --move /dev /root/dev; $bb umount /proc /sys
exec $bb switch_root /root /sbin/init
"""
UNIT = """[Unit]
After=multi-user.target ejectable-live.service
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/sbin/story.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
[Install]
WantedBy=graphical.target
"""


def base() -> Path:
    """Debian with the kernel, its headers and the tools, without ejectable: made once."""
    kept = cache_folder() / "live-whole" / f"base-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    with locked("live-whole"):
        if not kept.exists():
            aside = kept.with_suffix(".part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(aside), mirror()]
            run("nice", "-n", "10", *command)
            _kernel_into(aside)
            dependencies = ["pip", "install", "--quiet", "--require-hashes", "-r", "requirements/run.txt"]
            run(sys.executable, "-m", *dependencies, "--target", str(aside / "usr/lib/python3/dist-packages"))
            aside.rename(kept)
    return kept


def _kernel_into(root: Path) -> None:
    """Image, modules and headers of the packages; virtio_pci.ko is the faulty one."""
    packages = [
        f"linux-image-{RELEASE}",
        f"linux-headers-{RELEASE}",
        f"linux-headers-{RELEASE.split('-cloud', maxsplit=1)[0]}-common",
    ]
    for package in (*packages, "linux-kbuild-6.1"):
        with tempfile.TemporaryDirectory(dir=root) as folder:
            unpack_deb(fetch(package), Path(folder))
            # Part by part: /lib is a link to usr/lib, which a package's own directory would replace.
            for part in ("boot", "lib/modules", "usr"):
                if (Path(folder) / part).is_dir():
                    (root / part).mkdir(parents=True, exist_ok=True)
                    run("cp", "-a", f"{folder}/{part}/.", str(root / part))
    modules = root / "lib/modules" / RELEASE
    shutil.copy(faulty_module(RELEASE), modules / "kernel/drivers/virtio/virtio_pci.ko")
    run("depmod", "-b", str(root), RELEASE)


def disk(folder: Path) -> Path:
    """A file system with everything in it, ejectable from a wheel that is made now."""
    root = folder / "root"
    run("cp", "-a", str(base()), str(root))
    install_ejectable(folder, root)
    return make_disk(folder, root, STORY)


def install_ejectable(folder: Path, root: Path) -> None:
    """Ejectable itself, by its wheel, into the root of a guest."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), ".")
    wheel = next(folder.glob("ejectable-*.whl"))
    run(sys.executable, "-m", "zipfile", "-e", str(wheel), str(root / "usr/lib/python3/dist-packages"))
    program = root / "usr/local/bin/ejectable"
    program.write_text("#!/usr/bin/python3\nimport sys\nfrom ejectable.__main__ import main\nsys.exit(main())\n")
    program.chmod(0o755)


def make_disk(folder: Path, root: Path, story: Path) -> Path:
    """The disk image of a guest that tells this story once it is up; takes its root away."""
    shutil.copy(story, root / "usr/local/sbin/story.sh")
    (root / "etc/systemd/system/story.service").write_text(UNIT)
    wants = root / "etc/systemd/system/graphical.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "story.service").symlink_to("../story.service")
    for unit in ("serial-getty@ttyS0", "getty@tty1", "systemd-firstboot", "apt-daily.timer", "apt-daily-upgrade.timer"):
        name = unit if "." in unit else f"{unit}.service"
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    (root / "etc/fstab").write_text("/dev/vda / ext4 rw 0 1\n")
    (root / "etc/machine-id").write_text("uninitialized\n")
    image = folder / "root.img"
    with image.open("wb") as file:
        file.truncate(3 << 30)
    run("mkfs.ext4", "-q", "-F", "-d", str(root), str(image))
    shutil.rmtree(root)
    return image


def run(*command: str) -> None:
    """Run a command to its end; raises `Missing` with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Missing(f"`{' '.join(command)}` failed: {done.stderr.strip()[-600:]}", hint="Run it as root.")


def initramfs() -> bytes:
    """Drivers for the disk, and the way to its init."""
    kernel = open_kernel(str(fetch(f"linux-image-{RELEASE}")), modules=str(faulty_module(RELEASE).parent))
    root = Initramfs()
    root.file("bin/busybox", busybox("x86_64"), executable=True)
    modules = needed(kernel.modules, ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4"))
    for module in modules:
        root.file(f"m/{module.name}.ko", module.content)
    root.file("m/order", "".join(f"{module.name}\n" for module in modules).encode())
    for folder in ("proc", "sys", "dev", "root"):
        root.folder(folder)
    root.device("dev/console", 5, 1)
    root.file("init", INIT.encode(), executable=True)
    return root.image


class Host:
    """The guest's other side: it plugs, pulls and resets, as the console asks for it."""

    def __init__(self, folder: Path) -> None:
        image, extracted = disk(folder), folder / "kernel"
        unpack_deb(fetch(f"linux-image-{RELEASE}"), extracted)
        (folder / "initrd").write_bytes(initramfs())
        self._folder = folder
        self._monitor = folder / "qmp"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max", "-smp", "2"]
        command += ["-m", "1536", "-nic", "none", "-vga", "none", "-display", "none", "-serial", "stdio"]
        command += ["-kernel", str(extracted / "boot" / f"vmlinuz-{RELEASE}"), "-initrd", str(folder / "initrd")]
        command += ["-append", "console=ttyS0 panic=0 systemd.show_status=0 quiet random.trust_cpu=on no_timer_check"]
        command += ["-drive", f"file={image},format=raw,if=none,id=root,cache=unsafe"]
        command += ["-device", "virtio-blk-pci,drive=root,disable-legacy=on,disable-modern=off,addr=2"]
        command += ["-qmp", f"unix:{self._monitor},server=on,wait=off"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )

    def execute(self, name: str, **arguments: Any) -> None:
        """One QMP command; what it answers is not needed."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self._monitor))
            stream = link.makefile("rw")
            stream.readline()
            for request in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                while "return" not in (answer := json.loads(stream.readline())):
                    if "error" in answer:
                        raise Missing(f"QEMU refused {name}: {answer['error']}")

    def obey(self, wish: str) -> None:
        """`plug NAME`, `pull NAME` or `reset`."""
        verb, _, name = wish.partition(" ")
        if verb == "plug":
            file = self._folder / f"{name}.img"
            file.write_bytes(bytes(1 << 20))
            self.execute("blockdev-add", driver="file", **{"node-name": f"node-{name}", "filename": str(file)})
            self.execute(
                "device_add",
                driver="virtio-blk-pci",
                id=name,
                drive=f"node-{name}",
                **{"disable-modern": "on", "disable-legacy": "off"},
            )
        elif verb == "pull":
            self.execute("device_del", id=name)
        elif verb == "reset":
            self.execute("system_reset")


def main() -> int:
    """Run the story, keep what it came to."""
    # However it is ended, QEMU ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    said: list[dict[str, str]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="live-whole-") as folder:
        host = Host(Path(folder))
        transcript = (cache_folder() / "live-whole" / "console.log").open("w", encoding="utf-8")
        assert host.process.stdout is not None
        try:
            for line in host.process.stdout:
                transcript.write(line)
                transcript.flush()
                if match := re.search(r"HOST: (.*\S)", line):
                    host.obey(match[1])
                if match := re.search(r"PROOF: (ok|FAILED) (.*\S)", line):
                    said.append({"verdict": match[1], "step": match[2]})
                    print(f"{time.monotonic() - started:6.0f} s  {match[1]:6} {match[2]}", flush=True)
                if "PROOF: end" in line or time.monotonic() - started > LIMIT_S:
                    break
                if "BUG: kernel NULL pointer dereference" in line:
                    said.append({"verdict": "crash", "step": line.strip()})
        finally:
            host.process.kill()
            host.process.wait()
            transcript.close()
    state = hashlib.sha256(STORY.read_bytes()).hexdigest()[:16]
    (cache_folder() / WHOLE).write_text(
        "".join(json.dumps({**step, "story": state, "module": source_state()}) + "\n" for step in said)
    )
    bad = [step for step in said if step["verdict"] == "FAILED"]
    return 2 if bad or not said else 0


if __name__ == "__main__":
    sys.exit(main())
