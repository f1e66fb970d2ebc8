# SPDX-License-Identifier: GPL-2.0-or-later
"""Power cuts while `fix live --persist` is on a machine: at every step, and every disk that is left behind must boot.

    make live-power-cuts      about an hour under emulation; needs root, for debootstrap; writes docs/live-power-cuts.md

One guest with Debian 12 (systemd, DKMS, initramfs-tools, GRUB's menu, kernels as packages) persists the repair, gets a
new kernel, boots it, loses the old kernel, and takes the repair back (power_cuts.sh). Whenever it says so, between two
steps or in the middle of one, it is stopped, and what its disk holds at that moment is copied: all that it had not
written yet is lost. Then each copy is booted, with the kernel and the initrd that its GRUB menu chooses.
"""

import argparse
import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch, locked, sources
from corpus.live_whole import RELEASE, base, install_ejectable, make_disk, run
from corpus.modules import faulty_module
from ejectable.errors import Missing

__all__ = ["Cut", "page"]

TARGET = Path("docs/live-power-cuts.md")
STORY = Path(__file__).with_name("power_cuts.sh")
NEWER = "6.1.0-56-cloud-amd64"
MORE = ("initramfs-tools", "linux-base", "grub2-common", "e2fsprogs", "linux-compiler-gcc-12-x86")
STORY_S, BOOT_S = 5400.0, 900.0
# As far as file systems, devices and our own unit: what comes after them takes long under emulation.
PROBE = ("power_cuts.probe", "systemd.unit=sysinit.target", "systemd.wants=story.service")


class Cut(msgspec.Struct, frozen=True):
    """One power cut, and what the disk did that it left."""

    what: str
    boots: str  # the release that came up; empty where none did
    detail: str  # what it said of itself then


def headers(release: str) -> tuple[str, ...]:
    """The packages of a kernel that is installed with its headers, in the order of their dependencies."""
    return (
        f"linux-headers-{release.partition('-cloud')[0]}-common",
        f"linux-headers-{release}",
        f"linux-image-{release}",
    )


def system() -> Path:
    """The guest's root: Debian with one kernel installed as a package, and the next one at hand. Made once."""
    kept = cache_folder() / "live-whole" / f"packages-{hashlib.sha256(repr((MORE, NEWER)).encode()).hexdigest()[:8]}"
    with locked("live-packages"):
        if kept.exists():
            return kept
        aside = kept.with_suffix(".part")
        shutil.rmtree(aside, ignore_errors=True)
        run("cp", "-a", str(base()), str(aside))
        (aside / "etc/apt/sources.list").write_text(sources())
        quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-install-recommends")
        inside = ("chroot", str(aside))
        run(*inside, "apt-get", "-qq", "update")
        run(*inside, *quiet, "install", *MORE)
        (aside / "etc/initramfs-tools/initramfs.conf").open("a").write("MODULES=list\nCOMPRESS=gzip\n")
        (aside / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
        packages = aside / "var/packages"
        packages.mkdir()
        for release in (RELEASE, NEWER):
            for name in (*headers(release), "linux-kbuild-6.1"):
                shutil.copy(fetch(name), packages / f"{name}.deb")
        names = ("linux-kbuild-6.1", *headers(RELEASE))
        run(*inside, "env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "-i", *(f"/var/packages/{n}.deb" for n in names))
        run(*inside, *quiet, "-f", "install")
        aside.rename(kept)
    return kept


def disk(folder: Path) -> Path:
    """The guest's disk."""
    root = folder / "root"
    run("cp", "-a", str(system()), str(root))
    modules = root / "lib/modules" / RELEASE
    shutil.copy(faulty_module(RELEASE), modules / "kernel/drivers/virtio/virtio_pci.ko")
    run("depmod", "-b", str(root), RELEASE)
    for name, release in (("newer", NEWER), ("older", RELEASE)):
        (root / "var/packages" / name).write_text(f"{release}\n")
    (root / "boot/grub").mkdir(exist_ok=True)
    install_ejectable(folder, root)
    return make_disk(folder, root, STORY)


class Chosen(msgspec.Struct, frozen=True):
    """What GRUB's menu boots: files of the disk, copied out of it."""

    kernel: Path
    initrd: Path | None


def chosen(image: Path, folder: Path) -> Chosen:
    """The first entry of the menu on a disk; where there is no menu (the first boot), the older kernel."""
    menu = out_of(image, "/boot/grub/grub.cfg", folder / "grub.cfg")
    paths = ["", f"/boot/vmlinuz-{RELEASE}", f"/boot/initrd.img-{RELEASE}"]
    if menu is not None:
        entry = re.search(r"^menuentry .*?^}", menu.read_text(), re.MULTILINE | re.DOTALL)
        if entry is None:
            raise Missing("GRUB's menu has no entry.")
        found = (re.search(rf"^\s*{word}\s+(\S+)", entry[0], re.MULTILINE) for word in ("linux", "initrd"))
        paths[1:] = [match[1] if match else "" for match in found]
    kernel = out_of(image, paths[1], folder / "kernel")
    if kernel is None:
        raise Missing(f"GRUB's menu names {paths[1]}, which is not on the disk.")
    return Chosen(kernel, out_of(image, paths[2], folder / "initrd") if paths[2] else None)


def out_of(image: Path, path: str, target: Path) -> Path | None:
    """A file of the disk, copied out of it; `None` where it is not there or empty."""
    target.unlink(missing_ok=True)
    subprocess.run(["debugfs", "-R", f"dump {path} {target}", str(image)], capture_output=True, check=False)
    return target if target.exists() and target.stat().st_size else None


class Guest:
    """A guest on one disk, started with what its menu chooses."""

    def __init__(self, image: Path, folder: Path, *words: str) -> None:
        self.monitor = folder / "qmp"
        picked = chosen(image, folder)
        command = ["nice", "-n", "2", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc", "-cpu"]
        command += ["max", "-smp", "2", "-m", "1024", "-nic", "none", "-vga", "none", "-display", "none", "-no-reboot"]
        command += ["-serial", "stdio", "-kernel", str(picked.kernel)]
        command += ["-initrd", str(picked.initrd)] if picked.initrd else []
        line = "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=0 quiet random.trust_cpu=on no_timer_check"
        command += ["-append", " ".join((line, *words))]
        command += ["-drive", f"file={image},format=raw,if=none,id=root,cache=unsafe"]
        command += ["-device", "virtio-blk-pci,drive=root,disable-legacy=on,disable-modern=off,addr=2"]
        command += ["-qmp", f"unix:{self.monitor},server=on,wait=off"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )

    def execute(self, name: str) -> None:
        """One QMP command without arguments."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.monitor))
            stream = link.makefile("rw")
            stream.readline()
            for word in ("qmp_capabilities", name):
                stream.write(json.dumps({"execute": word}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass

    def lines(self, limit_s: float) -> Iterator[str]:
        """What it says on its console, until it ends; it is ended after `limit_s` seconds."""
        assert self.process.stdout is not None
        clock = threading.Timer(limit_s, self.process.kill)
        clock.start()
        try:
            yield from self.process.stdout
        finally:
            clock.cancel()
            self.process.kill()
            self.process.wait()


def story(folder: Path, keep: Path) -> list[str]:
    """Tell it to the end, and keep a copy of the disk for each power cut; what each was."""
    image = disk(folder)
    cuts: list[str] = []
    with (keep / "console.log").open("w", encoding="utf-8") as transcript:
        for _ in range(3):
            guest = Guest(image, folder)
            for line in guest.lines(STORY_S):
                transcript.write(line)
                transcript.flush()
                if match := re.search(r"CUT: (.*\S)", line):
                    with contextlib.suppress(OSError):  # it ended meanwhile: the disk is as it left it
                        guest.execute("stop")
                    run("cp", "--sparse=always", str(image), str(keep / f"{len(cuts):02}.img"))
                    cuts.append(match[1])
                    (keep / "cuts.json").write_text(json.dumps(cuts))
                    print(f"{time.strftime('%H:%M:%S')} cut {len(cuts)}: {match[1]}", flush=True)
                    with contextlib.suppress(OSError):
                        guest.execute("cont")
                if "STEP: " in line:
                    print(f"{time.strftime('%H:%M:%S')} {line.strip()}", flush=True)
                if line.startswith("END"):
                    return cuts
    return cuts


def boots(image: Path, what: str) -> Cut:
    """Boot what a power cut left behind; the disk's journal is replayed first, as the kernel does when it mounts it."""
    with tempfile.TemporaryDirectory(prefix="power-cut-") as folder:
        checked = subprocess.run(["e2fsck", "-p", str(image)], capture_output=True, text=True, check=False)
        if checked.returncode > 1:
            return Cut(what, "", f"the file system is damaged: {checked.stdout[-200:]}")
        last = ""
        try:
            for line in Guest(image, Path(folder), *PROBE).lines(BOOT_S):
                last = line.strip() or last
                if match := re.search(r"BOOTED: (\S+); (.*\S)", line):
                    return Cut(what, match[1], match[2])
        except Missing as error:
            last = error.message
        return Cut(what, "", last[-200:])


def page(cuts: Sequence[Cut]) -> str:
    """The document."""
    dead = [cut for cut in cuts if not cut.boots]
    rows = "\n".join(f"| {cut.what} | {cut.boots or '**nothing**'} | {cut.detail} |" for cut in cuts)
    return PAGE.format(count=len(cuts), dead=len(dead), older=RELEASE, newer=NEWER, rows=rows)


def main() -> int:
    """Tell the story where it was not told, boot what was not booted, write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--fresh", action="store_true", help="forget what is known")
    options.add_argument("--story", action="store_true", help="tell the story, and boot nothing")
    options.add_argument("--share", default="0/1", help="K/N: boot every Nth disk, from the Kth on; write no page")
    options.add_argument("--table", action="store_true", help="write the page of what is known, run nothing")
    given = options.parse_args()
    keep = cache_folder() / "power-cuts"
    if given.fresh:
        shutil.rmtree(keep, ignore_errors=True)
    keep.mkdir(exist_ok=True)
    known = keep / "cuts.json"
    if not (keep / "told").exists() and not given.table:
        with tempfile.TemporaryDirectory(prefix="power-cuts-") as folder:
            story(Path(folder), keep)
        (keep / "told").touch()
    what = json.loads(known.read_text())
    first, step = map(int, given.share.split("/"))
    for number in () if given.story or given.table else range(first, len(what), step):
        kept = keep / f"{number:02}.json"
        if not kept.exists():
            cut = boots(keep / f"{number:02}.img", what[number])
            kept.write_bytes(msgspec.json.encode(cut))
            print(f"{time.strftime('%H:%M:%S')} {number} {cut}", flush=True)
    cuts = [msgspec.json.decode(file.read_bytes(), type=Cut) for file in sorted(keep.glob("[0-9]*.json"))]
    if step == 1 and cuts:
        TARGET.write_text(page(cuts), encoding="utf-8")
    return 2 if any(not cut.boots for cut in cuts) else 0


PAGE = """<!-- Written by `make live-power-cuts`: do not edit. -->
# Power cuts while the repair is persistent

One machine (Debian 12: systemd, DKMS 3.0, initramfs-tools, GRUB's menu; emulated) with {older}, whose virtio_pci is
faulty: `fix live --apply --persist`, then {newer} with its headers, a reboot into it, the older kernel purged, and
`fix live --undo`. At each line its disk was copied as it was at that moment, between two steps or in the middle of
one: what had not been written yet is lost, as in a power cut. Each copy was then booted, with the kernel and the initrd
that its menu chooses. Packages that are half done are dpkg's own word (`dpkg --audit`), after a cut in the middle of
dpkg.

**{count} power cuts; disks that did not boot: {dead}.**

| power cut | booted | and then |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
