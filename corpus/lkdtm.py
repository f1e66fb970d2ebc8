# SPDX-License-Identifier: GPL-2.0-or-later
"""Provoke the kernel's own crash tests (LKDTM) in guests, let `ejectable crash` read the consoles, write docs/lkdtm.md.

    make lkdtm                          each test on each kernel: half an hour on two cores
    make lkdtm ARGS="--only EXEC_NULL"  the tests whose name holds this
    make lkdtm ARGS=--table             only write the table, from what is known

Each test is a guest of its own. Whether a crash happened, and in which function of the test, is told by plain words in
the raw console (`ORACLE`, `lkdtm_*` in the trace), without the reader; what the reader makes of it is held against
that, and what differs makes the exit code 2. None is CVE-2024-42134, though EXEC_NULL calls address 0 as well. The
consoles stay in the corpus' cache, in the folder `lkdtm`.

lkdtm.ko comes out of linux-source, built against the kernel's headers; one small kernel has it built in.
Documentation/fault-injection/provoke-crashes.rst describes the tests.
"""

import argparse
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from corpus import compilers
from corpus.archive import cache_folder, fetch
from corpus.builds import Manifest, build_once, run_logged
from corpus.kernels import CONFIGS, build_tree, crash_test_kernel, small_kernel
from corpus.trees import architecture_of, headers, source, source_version
from ejectable.advisories import choose
from ejectable.assess.crashes import judge as judgement
from ejectable.crash.logs import read_bytes
from ejectable.lab.busybox import busybox
from ejectable.lab.initramfs import Initramfs
from ejectable.lab.kernels import open_kernel
from ejectable.model import Arch, Event

__all__ = ["SUBJECTS", "Reading", "Subject", "judge", "read_console"]

TARGET = Path("docs/lkdtm.md")
LIMIT_S = 120.0  # of one guest, boot included
MOST = 4 << 20  # bytes of a console

# What a kernel says when something went wrong, each at the beginning of its message.
ORACLE = re.compile(
    rb"(?:^|\] )(?:BUG: |WARNING: |Oops: |Internal error: |Unable to handle kernel|kernel BUG at "
    rb"|general protection fault|Kernel panic - not syncing|watchdog: BUG: |INFO: task |divide error: |invalid opcode: "
    rb"|double fault: |int3: |rcu: INFO: |usercopy: Kernel memory |CFI failure|stack segment: |UBSAN: "
    rb"|Insufficient stack space)",
    re.MULTILINE,
)
IN_TRACE = re.compile(
    rb"\b((?:__)?lkdtm_\w+|recursive_loop|execute_(?:user_)?location|do_usercopy_\w+|data_area|direct_entry)(?:\.\w+)*\+0x"
)
# Where a CPU is stuck or a stack is full, the top of the trace is a random one: the entry to the tests is right, too.
ENTRY = "direct_entry"
IN_VAIN = "smp_call_function"  # a CPU that waits for another one's answer, whoever asked
RANDOM_TOP = ("soft-lockup", "hard-lockup", "rcu-stall", "hung-task", "stack-overflow")

STARTED = b"LKDTM: begin"
NO_CRASH = ("UNSET_SMEP", "ATOMIC_TIMING", "REFCOUNT_TIMING", "PPC_SLB_MULTIHIT")

INIT = r"""#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc; $bb mount -t sysfs sys /sys; $bb mount -t debugfs debug /sys/kernel/debug
[ -e /lkdtm.ko ] && $bb insmod /lkdtm.ko
cd /proc/sys/kernel
for set in watchdog_thresh=2 hung_task_timeout_secs=2 hung_task_check_interval_secs=1 softlockup_panic=0; do
	[ -e "${set%=*}" ] && echo "${set#*=}" >"${set%=*}"
done
read -r test </test
place=/sys/kernel/debug/provoke-crash
$bb grep -qx "$test" $place/DIRECT || { echo "LKDTM: begin"; echo "LKDTM: none"; $bb sleep 60; }
echo "LKDTM: begin"
(echo "$test" >$place/DIRECT) &
n=0
while [ -d /proc/$! ] && [ $n -lt 80 ]; do $bb sleep 0.1; n=$((n+1)); done
$bb sleep 0.5
echo "LKDTM: end"
$bb sleep 60
"""


class Subject(msgspec.Struct, frozen=True):
    """A kernel, and the tests that are made on it."""

    name: str
    what: str
    arch: Arch
    only: str = ""  # a pattern that the test's name must match; "" for all


class Reading(msgspec.Struct, frozen=True):
    """What one test came to."""

    subject: str
    test: str
    outcome: str  # crashed, quiet, none (the kernel does not have this test), no-boot
    blamed: tuple[str, ...] = ()  # the test's own functions in the raw console, in their order
    kind: str | None = None  # as the reader sees it, like what follows
    function: str | None = None
    title: str | None = None
    advisory: str | None = None
    wrong: str = ""


MEMORY = r"SLAB|BUDDY|FREE|VMALLOC|STACK|USERCOPY|FORTIFY|LIST|BOUNDS|SPINLOCK|EXEC_NULL|ACCESS|BUG|WARNING\Z"
SUBJECTS = (
    Subject("6.1.0-50-cloud-amd64", "Debian's 6.1", "x86_64"),
    Subject("6.1.0-50-cloud-arm64", "Debian's 6.1, arm64", "aarch64"),
    Subject("amd64-gcc", "6.12, small", "x86_64"),
    Subject("amd64-kasan", "6.1 with KASAN and lockdep", "x86_64", MEMORY),
)


def tests() -> tuple[str, ...]:
    """The names of all tests, out of the kernel's source."""
    folder = source("6.12") / "drivers/misc/lkdtm"
    return tuple(
        dict.fromkeys(
            name
            for file in sorted(folder.glob("*.c"))
            for name in re.findall(r"CRASHTYPE\((\w+)\)", file.read_text())
            if name not in NO_CRASH
        )
    )


def lkdtm_module(subject: Subject) -> Path | None:
    """lkdtm.ko for this kernel, made on first use; `None` where it is built in."""
    if subject.name == "amd64-gcc":
        return None
    small = CONFIGS.get(subject.name)
    tree, family = (build_tree(small.name), small.family) if small else (headers(subject.name), "6.1")

    def recipe(aside: Path) -> Manifest:
        work = aside / "work"
        shutil.copytree(source(family) / "drivers/misc/lkdtm", work)
        bugs = work / "bugs.c"
        # No kernel exports this; the one test that needs it (UNSET_SMEP) is none for a module.
        gone = "static void nothing(unsigned long value) { }\n#define native_write_cr4 nothing\n"
        text = bugs.read_text()
        at = text.index("void lkdtm_UNSET_SMEP") if "void lkdtm_UNSET_SMEP" in text else len(text)
        at = text.rindex("\n", 0, at) + 1
        bugs.write_text(text[:at] + gone + text[at:])
        cross = "aarch64-linux-gnu-" if subject.arch == "aarch64" else ""
        command = ["make", "-C", str(tree), f"M={work}", "modules", "CONFIG_LKDTM=m"]
        command += [f"CC={compilers.command('gcc-12', cross)}"]
        command += ["ARCH=arm64", f"CROSS_COMPILE={cross}"] if cross else []
        run_logged(command, cache_folder() / "logs" / f"lkdtm-{subject.name}.log")
        run_logged([f"{cross}strip", "--strip-debug", work / "lkdtm.ko"], cache_folder() / "logs" / "lkdtm-strip.log")
        (work / "lkdtm.ko").rename(aside / "lkdtm.ko")
        shutil.rmtree(work)
        return Manifest(
            name=f"lkdtm-{subject.name}",
            artefact="lkdtm.ko",
            expected="not_affected",
            variant="stock",
            arch="arm64" if cross else "amd64",
            source=source_version(family),
            release=subject.name,
            compiler="gcc-12",
            opt="O2",
            btf=False,
            debug=False,
            retpoline=not cross,
            virtio_pci="module",
            compression="none",
            notes="the kernel's crash tests",
        )

    return build_once(f"lkdtm-{subject.name}", recipe)


class Guest:
    """All that the guests of one kernel have in common."""

    def __init__(self, subject: Subject) -> None:
        if subject.name == "amd64-gcc":
            image = crash_test_kernel()
        elif subject.name in CONFIGS:
            image = small_kernel(config=subject.name)
        else:
            image = fetch(f"linux-image-{subject.name}", architecture_of(subject.name))
        self.subject = subject
        self.arch = subject.arch
        self.kernel = open_kernel(str(image))
        package = str(fetch("busybox-static", "arm64")) if self.arch == "aarch64" else None
        self.busybox = busybox(self.arch, package)
        self.module = lkdtm_module(subject)

    def run(self, test: str) -> bytes:
        """The console of a guest in which the test was made."""
        root = Initramfs()
        root.file("init", INIT.encode(), executable=True)
        root.file("bin/busybox", self.busybox, executable=True)
        root.file("test", f"{test}\n".encode())
        if self.module is not None:
            root.file("lkdtm.ko", self.module.read_bytes())
        for folder in ("proc", "sys", "dev"):
            root.folder(folder)
        console = "ttyS0" if self.arch == "x86_64" else "ttyAMA0"
        root.device("dev/console", 5, 1)
        root.device("dev/null", 1, 3)
        with tempfile.TemporaryDirectory(prefix="lkdtm-") as folder:
            (Path(folder) / "kernel").write_bytes(self.kernel.image)
            (Path(folder) / "initrd").write_bytes(root.image)
            machine, cpu = ("pc", "max") if self.arch == "x86_64" else ("virt,gic-version=3", "cortex-a72")
            command = [f"qemu-system-{self.arch}", "-accel", "tcg", "-machine", machine, "-cpu", cpu, "-smp", "2"]
            command += ["-m", "512", "-nic", "none", "-vga", "none", "-display", "none", "-serial", "stdio"]
            command += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny", "-monitor", "none"]
            command += ["-kernel", f"{folder}/kernel", "-initrd", f"{folder}/initrd", "-no-reboot", "-append"]
            command += [
                f"console={console} panic=0 panic_on_oops=0 random.trust_cpu=on cryptomgr.notests no_timer_check"
            ]
            return _console(command)


RUNNING: set[subprocess.Popen[bytes]] = set()


def _stop(_number: int, _frame: object) -> None:
    """However this is ended, the guests end with it."""
    for process in list(RUNNING):
        process.kill()
    os._exit(143)  # the threads that wait for the guests would hold up anything gentler


def _console(command: Sequence[str]) -> bytes:
    """What a guest says until its test is over, or its time."""
    text = bytearray()
    ends = time.monotonic() + LIMIT_S
    with (
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process,
        selectors.DefaultSelector() as waiting,
    ):
        assert process.stdout is not None
        RUNNING.add(process)
        waiting.register(process.stdout, selectors.EVENT_READ)
        quiet: float | None = None
        while len(text) < MOST and time.monotonic() < (quiet or ends):
            if not waiting.select(timeout=0.5):
                continue
            piece = process.stdout.read(1 << 16)
            if not piece:
                break
            text += piece
            if quiet is None and re.search(rb"LKDTM: (?:end|none)|end Kernel panic", text):
                quiet = time.monotonic() + 0.3
        process.kill()
        RUNNING.discard(process)
    return bytes(text)


def read_console(subject: str, test: str, console: bytes) -> Reading:
    """Hold what the reader makes of a console against what stands in it."""
    if b"LKDTM: none" in console:
        return Reading(subject, test, "none")
    start = console.find(STARTED)
    if start < 0:
        return Reading(subject, test, "no-boot", wrong="the guest did not boot")
    events = read_bytes(console, "console").events
    before = console.count(b"\n", 0, start) + 1
    return judge(subject, test, console[start:], [event for event in events if event.line > before])


def judge(subject: str, test: str, said: bytes, events: Sequence[Event]) -> Reading:
    """The same, of the part of the console since the test began, and of the events in it."""
    crashed = ORACLE.search(said) is not None
    trace = re.split(rb"(?:Allocated|Freed) by task ", said)[0]  # KASAN shows what others did before, too
    blamed = tuple(dict.fromkeys(name.decode() for name in IN_TRACE.findall(trace)))
    first = events[0] if events else None
    advisories = [judgement(event, choose(())).advisory for event in events]
    wrong = ""
    if crashed != bool(events):
        wrong = "not seen" if crashed else "nothing happened"
    elif any(advisories):
        wrong = "taken for the defect"
    elif first is not None and blamed:
        right = {name for name in blamed if name != ENTRY} or {ENTRY}
        found = {first.function}
        if first.kind in RANDOM_TOP:
            right |= {ENTRY, IN_VAIN}
            found = {event.function for event in events}  # who waits for the stuck CPU may be told first
        wrong = "" if found & right else "another function"
    return Reading(
        subject,
        test,
        "crashed" if crashed else "quiet",
        blamed,
        first.kind if first else None,
        first.function if first else None,
        first.title if first else None,
        next((advisory for advisory in advisories if advisory), None),
        wrong,
    )


def page(known: Sequence[Reading]) -> tuple[str, int]:
    """docs/lkdtm.md, and how many readings are wrong."""
    count = len(known)
    every = {(one.subject, one.test): one for one in known}
    wrong = [one for one in every.values() if one.wrong]
    crashed = [one for one in every.values() if one.outcome == "crashed"]
    called = [one for one in crashed if one.kind == "null-call"]
    defect = "CVE-2024-42134"
    taken = sum(one.advisory is not None for one in crashed)
    lines = [
        "<!-- Written by `make lkdtm`: do not edit. -->",
        "# The kernel's own crash tests, read",
        "",
        f"{count} guests (QEMU, emulated), each with one of LKDTM's tests provoked in it: {len(crashed)} crashed,",
        f"in {count - len(crashed)} nothing went wrong, or the kernel lacks the test. Whether one crashed, and in",
        "which function of the test, was told from the raw console by plain words; the reader was held against that.",
        "",
        f"Readings that differ: {len(wrong)}. Taken for {defect}: {taken}, though {len(called)} called address 0.",
        "",
        "| test | " + " | ".join(f"{subject.what} ({subject.name})" for subject in SUBJECTS) + " |",
        "|---|" + "---|" * len(SUBJECTS),
    ]
    for test in dict.fromkeys(one.test for one in every.values()):
        cells = [_cell(every.get((subject.name, test))) for subject in SUBJECTS]
        lines.append(f"| {test} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""]), len(wrong)


def _cell(one: Reading | None) -> str:
    if one is None or one.outcome == "none":
        return ""
    text = f"{one.kind} in {one.function}" if one.kind else "quiet"
    return f"**{one.wrong}: {text}**" if one.wrong else text


def main() -> int:
    """Run what is not known yet, then write the page."""
    options = argparse.ArgumentParser(prog="make lkdtm", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--fresh", action="store_true", help="run all guests again")
    options.add_argument("--only", default="", help="tests whose name holds this")
    options.add_argument("--on", default="", help="kernels whose name holds this")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--table", action="store_true", help="only write the page, from the consoles that are there")
    chosen = options.parse_args()
    readings: list[Reading] = []
    for subject in SUBJECTS:
        folder = cache_folder() / "lkdtm" / subject.name
        folder.mkdir(parents=True, exist_ok=True)
        waiting = [test for test in tests() if re.search(subject.only, test)]
        if not chosen.table and chosen.on in subject.name:
            again = [t for t in waiting if chosen.only in t and (chosen.fresh or not (folder / f"{t}.log").exists())]
            guest = Guest(subject) if again else None
            with ThreadPoolExecutor(chosen.jobs) as pool:
                for test, console in zip(again, pool.map(guest.run, again) if guest else (), strict=True):
                    if STARTED in console:  # else it is tried again the next time
                        aside = folder / f"{test}.part"
                        aside.write_bytes(console)
                        aside.rename(folder / f"{test}.log")
                    one = read_console(subject.name, test, console)
                    said = f"{one.kind} in {one.function}" if one.kind else one.outcome
                    print(f"{subject.name} {test}: {said}{f'   WRONG: {one.wrong}' if one.wrong else ''}", flush=True)
        consoles = {test: folder / f"{test}.log" for test in waiting}
        readings += [
            read_console(subject.name, test, log.read_bytes()) for test, log in consoles.items() if log.exists()
        ]
    text, wrong = page(readings)
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {len(readings)} readings, {wrong} wrong")
    return 2 if wrong else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    sys.exit(main())
