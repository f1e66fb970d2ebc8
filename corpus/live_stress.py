# SPDX-License-Identifier: GPL-2.0-or-later
"""The module of `fix live` under stress: everything that it takes part in, side by side, under KASAN and lockdep.

    make live-stress                     ten minutes on 2 and on 4 virtual processors; writes docs/live-stress.md
    make live-stress ARGS=--debian       the same on Debian's kernel, which watches itself less

The guest's kernel has the member and the test in front of its call (the `fixed` variant): the module acts on each
legacy device, and nothing crashes while it happens to be unloaded. Four loops run at once: disks are plugged and
unplugged (by ACPI), one device is taken from its PCI driver and given back, another from its virtio driver, and the
module is loaded and unloaded. The log must hold no event, not even a warning.
"""

import argparse
import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from corpus.archive import cache_folder, fetch
from corpus.kernels import small_kernel
from corpus.live_modules import for_debian, for_small
from corpus.modules import faulty_module
from ejectable import read_logs
from ejectable.lab.busybox import busybox
from ejectable.lab.initramfs import Initramfs
from ejectable.lab.kernels import open_kernel
from ejectable.lab.modules import needed

__all__ = ["Strained", "page", "strain"]

TARGET = Path("docs/live-stress.md")
KEPT = "live-stress.jsonl"
KASAN, DEBIAN, VARIANT = "amd64-kasan", "6.1.0-50-cloud-amd64", "fixed"
KERNELS = {KASAN: "small, 6.1, with KASAN, lockdep and checks of sleeping in atomic context", DEBIAN: "Debian's"}
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_rng", "virtio_balloon")
SLOTS = (8, 9)  # of the PCI bus, for what comes and goes
INIT = """#!/bin/busybox sh
for a in mount insmod rmmod sleep cat mkdir ls poweroff basename readlink; do alias $a="/bin/busybox $a"; done
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo 8 >/proc/sys/kernel/printk
[ -e /m/order ] && while read -r m; do insmod "/m/$m.ko"; done </m/order
echo STRESS: begins
end=$(($(cat /proc/uptime | /bin/busybox cut -d. -f1) + SECONDS_TO_GO))
more() { [ $(/bin/busybox cut -d. -f1 /proc/uptime) -lt $end ]; }
(n=0; r=0; acted=0
 while more; do
   insmod /m/ejectable_live.ko && n=$((n+1))
   sleep 0.$((n % 7))
   acted=$((acted + $(cat /sys/module/ejectable_live/parameters/acted)))
   rmmod ejectable_live 2>/dev/null || { r=$((r+1)); sleep 0.2; rmmod ejectable_live 2>/dev/null; }
 done; echo "STRESS: loaded $n times, unloading refused $r times, acted at least $acted times") &
(n=0; d=0000:00:05.0
 while more; do
   echo $d >/sys/bus/pci/drivers/virtio-pci/unbind; echo $d >/sys/bus/pci/drivers/virtio-pci/bind; n=$((n+1))
 done; echo "STRESS: taken from the PCI driver $n times") &
(n=0; d=$(basename $(ls -d /sys/bus/pci/devices/0000:00:06.0/virtio*))
 while more; do
   echo $d >/sys/bus/virtio/drivers/virtio_balloon/unbind; echo $d >/sys/bus/virtio/drivers/virtio_balloon/bind
   n=$((n+1))
 done; echo "STRESS: taken from the virtio driver $n times") &
wait
echo STRESS: ends
sleep 2
poweroff -f
"""


class Strained(msgspec.Struct, frozen=True):
    """One guest: its kernel and processors, how long, what was done how often, and each event of its log."""

    kernel: str
    processors: int
    seconds: int
    done: tuple[str, ...]
    plugged: int
    events: tuple[str, ...]
    ended: bool


def guest_of(kernel: str, seconds: int) -> tuple[bytes, bytes]:
    """The kernel's image, and the guest's initramfs."""
    made = Initramfs()
    made.file("bin/busybox", busybox("x86_64"), executable=True)
    if kernel == KASAN:
        image = small_kernel(VARIANT, KASAN).read_bytes()
        made.file("m/ejectable_live.ko", for_small(KASAN, VARIANT).read_bytes())
    else:
        driver = faulty_module(kernel, VARIANT)
        opened = open_kernel(str(fetch(f"linux-image-{kernel}")), modules=str(driver.parent))
        image = opened.image
        modules = needed(opened.modules, DRIVERS)
        for module in modules:
            made.file(f"m/{module.name}.ko", module.content)
        made.file("m/order", "".join(f"{module.name}\n" for module in modules).encode())
        made.file("m/ejectable_live.ko", for_debian(kernel, VARIANT).read_bytes())
    for folder in ("proc", "sys", "dev"):
        made.folder(folder)
    made.device("dev/console", 5, 1)
    made.file("init", INIT.replace("SECONDS_TO_GO", str(seconds)).encode(), executable=True)
    return image, made.image


class Monitor:
    """QEMU's control channel: commands, and what went away."""

    def __init__(self, path: Path) -> None:
        self._link = socket.socket(socket.AF_UNIX)
        self._link.settimeout(60)
        self._link.connect(str(path))
        self._stream = self._link.makefile("rw")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def execute(self, name: str, **arguments: Any) -> bool:
        """Run it; whether QEMU did it."""
        self._stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "return" in answer or "error" in answer:
                return "return" in answer

    def plug_and_pull(self, slot: int, generation: int) -> bool:
        """A legacy disk comes and goes; whether it did both."""
        name, node = f"d{slot}-{generation}", f"n{slot}-{generation}"
        legacy = {"disable-modern": "on", "disable-legacy": "off"}
        self.execute("blockdev-add", driver="null-co", size=1 << 20, **{"node-name": node, "read-zeroes": True})
        if not self.execute("device_add", driver="virtio-blk-pci", id=name, drive=node, addr=f"{slot:x}", **legacy):
            return False
        time.sleep(1.5)
        for _ in range(40):
            self.execute("device_del", id=name)
            time.sleep(0.5)
            if self.execute("blockdev-del", **{"node-name": node}):  # refused while the device is there
                return True
        return False


def strain(kernel: str, processors: int, seconds: int) -> Strained:
    """Run one guest."""
    plugged = 0
    with tempfile.TemporaryDirectory(prefix="live-stress-") as folder:
        image, initrd, monitor = (Path(folder) / name for name in ("image", "initrd", "qmp"))
        for file, content in zip((image, initrd), guest_of(kernel, seconds), strict=True):
            file.write_bytes(content)
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max", "-m", "512"]
        command += ["-smp", str(processors), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", str(image), "-initrd", str(initrd)]
        command += ["-append", "console=ttyS0 panic=-1 quiet no_timer_check"]
        command += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        for slot, kind in ((5, "virtio-rng-pci"), (6, "virtio-balloon-pci")):
            command += ["-device", f"{kind},disable-modern=on,disable-legacy=off,addr={slot}"]
        guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert guest.stdout is not None
        clock = threading.Timer(seconds * 3 + 900, guest.kill)
        clock.start()
        over = threading.Event()
        count = itertools.count()

        def outside() -> None:
            with contextlib.suppress(OSError, ValueError):
                link = Monitor(monitor)
                for generation in itertools.count():
                    for slot in SLOTS:
                        if over.is_set():
                            return
                        if link.plug_and_pull(slot, generation):
                            next(count)

        said = bytearray()
        try:
            for line in guest.stdout:
                said += line
                if b"STRESS: begins" in line:
                    threading.Thread(target=outside, daemon=True).start()
                if b"STRESS: ends" in line:
                    over.set()
        finally:
            over.set()
            clock.cancel()
            guest.kill()
            guest.wait()
        plugged = next(count)
        log = cache_folder() / f"live-stress-{kernel}-{processors}.log"
        log.write_bytes(said)
        events = tuple(f"{event.kind}: {event.title}" for event in read_logs(log).events)
    text = said.decode("utf-8", "replace")
    done = tuple(re.findall(r"STRESS: ((?:loaded|taken).*\S)", text))
    return Strained(kernel, processors, seconds, done, plugged, events, "STRESS: ends" in text)


def page(strained: list[Strained]) -> str:
    """The document."""
    rows = []
    for one in strained:
        events = "; ".join(one.events) or "none"
        ended = "" if one.ended else " **it did not end by itself**"
        done = "; ".join((*one.done, f"plugged and unplugged {one.plugged} times"))
        rows.append(
            f"| {one.kernel} ({KERNELS[one.kernel]}) | {one.processors} | {one.seconds} s | {done}{ended} | {events} |"
        )
    return PAGE.format(rows="\n".join(rows))


def main() -> int:
    """Run what is not known, and write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=int, default=600)
    options.add_argument("--debian", action="store_true", help="Debian's kernel instead of the one with KASAN")
    options.add_argument("--processors", type=int, action="append")
    options.add_argument("--fresh", action="store_true", help="forget what is known")
    given = options.parse_args()
    keep = cache_folder() / KEPT
    if given.fresh:
        keep.unlink(missing_ok=True)
    for processors in given.processors or (2, 4):
        found = strain(DEBIAN if given.debian else KASAN, processors, given.seconds)
        print(found, flush=True)
        with keep.open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")
    known = [msgspec.json.decode(line, type=Strained) for line in keep.read_bytes().splitlines()]
    last = {(one.kernel, one.processors): one for one in known if one.seconds == given.seconds}
    TARGET.write_text(page([last[key] for key in sorted(last)]), encoding="utf-8")
    return 2 if any(one.events or not one.ended for one in last.values()) else 0


PAGE = """<!-- Written by `make live-stress`: do not edit. -->
# The module under stress

Kernels whose vp_del_vqs() has the member and tests it first: so the module acts on each legacy device that goes, and
nothing crashes while it happens to be unloaded.
Side by side: disks are plugged and unplugged, a device is taken from its PCI driver and given back, another from its
virtio driver, and the module is loaded and unloaded. Emulated, on a host with 2 cores that had other work.

| kernel | processors | for | what was done | events in the log, warnings too |
|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
