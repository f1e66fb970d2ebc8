# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove `ejectable_live.ko` in guests, and write the table of docs/live-proof.md.

    make live-proof                   every kind of device with every trigger, each kernel, a thousand cycles
    make live-proof ARGS=--quick      a disk with each trigger, each kind by ACPI eject, fifty cycles
    make live-proof ARGS=--table      write the page from what is known, run nothing

A row is one guest of a kernel with the faulty callback. It has a legacy device, loads the module, unplugs the device,
plugs another one, unplugs that as well, unloads the module, plugs once more, and unplugs without it: everything up to
there must leave no event in the log, not even a warning, and the last unplug must end in the crash of CVE-2024-42134.
Results are kept in the corpus' cache as they come; what contradicts the claim is marked, and makes the exit code 2.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from corpus import live_modules
from corpus.archive import cache_folder, fetch
from corpus.kernels import CONFIGS, small_kernel
from corpus.live_table import Result, Row, page, source_state
from corpus.modules import faulty_module
from corpus.trees import architecture_of
from ejectable.errors import EjectableError
from ejectable.lab.busybox import busybox
from ejectable.lab.case import DEVICES, TRIGGERS, Case
from ejectable.lab.experiment import Experiment, Limits
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.modules import read_module
from ejectable.lab.rig import Refused, Rig
from ejectable.lab.running import Over

__all__ = ["KERNELS", "experiment", "rows", "tell"]

TARGET = Path("docs/live-proof.md")
KEPT = "live-proof.jsonl"
AMD64, SHPC, ARM64 = "6.1.0-50-cloud-amd64", "6.1.0-50-amd64", "6.1.0-50-cloud-arm64"
REALTIME = "6.1.0-56-rt-amd64"
# Debian's kernels with the faulty module, and small ones with the callback built in (corpus.kernels).
KERNELS = {
    AMD64: "Debian's, gcc",
    SHPC: "Debian's, gcc, for SHPC",
    ARM64: "Debian's arm64, gcc",
    "amd64-kasan": "KASAN and lockdep",
    "amd64-clang-kcfi": "clang, kCFI and IBT",
    "arm64-clang-kcfi": "arm64, clang, kCFI, shadow call stack, BTI, pointer authentication",
    REALTIME: "Debian's, gcc, PREEMPT_RT",
}
Q35 = ("pcie-hotplug", "shpc")
TOLD_NOTHING = "with the module loaded: "
NO_BOOT = f"{TOLD_NOTHING}no-boot"
SLOW = Limits(boot=400, silence=200, device=120, unplug=120, heartbeat=60, use=120, cycle=600)


def rows(*, quick: bool) -> Iterator[Row]:
    """All that is tried, in the order of the table."""
    devices = DEVICES[:-1]  # vsock needs the host's own driver
    for trigger in TRIGGERS:
        kernel, machine = (SHPC if trigger == "shpc" else AMD64), ("q35" if trigger in Q35 else "pc")
        for device in devices if not quick or trigger == "acpi-eject" else ("disk",):
            yield Row(kernel, machine, device, trigger)
        if trigger not in ("acpi-eject", "shpc"):
            for device in devices if not quick else ("disk",):
                yield Row(ARM64, "virt", device, trigger)
    for mode in ("forced-legacy", "modern", "transitional"):
        yield Row(AMD64, "pc", "disk", "acpi-eject", mode)
    # These small kernels have no ACPI, which q35 plugs a new device with in all other stories.
    for device in devices:
        yield Row("amd64-clang-kcfi", "q35", device, "pcie-hotplug")
    for trigger in ("pcie-hotplug", "sysfs-remove", "virtio-unbind"):
        for device in devices if trigger == "pcie-hotplug" else ("disk",):
            yield Row("arm64-clang-kcfi", "virt", device, trigger)
    yield Row(REALTIME, "pc", "disk", "acpi-eject")
    # No suspend: the small kernel has no alarm clock (rtc0/wakealarm) that would wake it.
    for trigger in ("acpi-eject", "sysfs-remove", "pci-unbind", "virtio-unbind"):
        for device in devices if trigger == "acpi-eject" else ("disk",):
            yield Row("amd64-kasan", "pc", device, trigger)
    yield Row(AMD64, "pc", "disk", "acpi-eject", cycles=50 if quick else 1000)
    yield Row("amd64-kasan", "pc", "disk", "acpi-eject", cycles=50 if quick else 1000)


@cache
def _kernel(name: str) -> tuple[GuestKernel, Path]:
    """The kernel for guests, and the module for it."""
    if name in CONFIGS:
        return open_kernel(str(small_kernel(config=name))), live_modules.for_small(name)
    package = fetch(f"linux-image-{name}", architecture_of(name))
    return open_kernel(str(package), modules=str(faulty_module(name).parent)), live_modules.for_debian(name)


async def tell(rig: Rig, cycles: int, seen: list[str]) -> int:
    """The story up to the last unloading; how many devices were unplugged with the module loaded."""
    unplugged = 0
    await rig.use()
    for _ in range(cycles):
        await rig.load("ejectable_live")
        await rig.unplug()
        await rig.plug()
        await rig.use()
        unplugged += 1
        if cycles == 1:  # the one that was plugged after loading
            await rig.unplug()
            await rig.plug()
            await rig.use()
            unplugged += 1
        await rig.unload("ejectable_live")
        seen += [event.title for event in rig.events]
        if seen:
            break
    return unplugged


def experiment(row: Row) -> Result:
    """Boot the guest, tell the story, and hold what came of it against the claim."""
    kernel, module = _kernel(row.kernel)
    seen: list[str] = []
    told: list[int] = []

    async def story(rig: Rig) -> None:
        told.append(await tell(rig, row.cycles, seen))
        if not seen:
            await rig.unplug()

    program = busybox(kernel.arch, str(fetch("busybox-static", "arm64")) if kernel.arch == "aarch64" else None)
    case = Case(row.machine, row.device, row.mode, row.trigger)
    carried = [read_module(str(module))]
    limits = SLOW if row.kernel in CONFIGS else Limits()
    run = Experiment(
        kernel, case, busybox=program, carried=carried, repeat=max(3, row.cycles), story=story, limits=limits
    )
    try:
        outcome = asyncio.run(run.run())
    except (Over, Refused) as error:
        return Result(sum(told), tuple(seen), "nothing", f"the story broke off: {error}", source_state())
    # None came before the last unplug (see `seen`). A guest starved of time may report a stall beside the crash.
    first = next((e for e in outcome.events if e.function == "vp_del_vqs"), next(iter(outcome.events), None))
    crash = f"{first.kind} in {first.function}" if first else "nothing"
    without = f"{outcome.result}: {crash}" if told and not seen else "not reached"
    # kCFI looks at what it is about to call, and faults there, in the caller.
    death = "paging-fault" if "kcfi" in row.kernel else "null-call"
    expected = ("survived", "nothing") if row.mode in ("modern", "transitional") else ("oops", f"{death} in vp_del_vqs")
    wrong = ""
    if not told:
        wrong = f"{TOLD_NOTHING}{outcome.result}, {crash}: {outcome.detail}"
    elif seen:
        wrong = f"in the log with the module loaded: {seen[0]}"
    elif (outcome.result, crash) != expected:
        wrong = f"without the module: {outcome.result}, {crash}, expected {' '.join(expected)}: {outcome.detail}"
    return Result(sum(told), tuple(seen), without, wrong, source_state())


def main() -> int:
    """Run what is not known yet, then write the page."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a selection")
    options.add_argument("--fresh", action="store_true", help="forget earlier results")
    options.add_argument("--table", action="store_true", help="write the page from what is known, run nothing")
    options.add_argument("--only", default="", help="rows whose description holds this")
    chosen = options.parse_args()
    keep = cache_folder() / KEPT
    if chosen.fresh:
        keep.unlink(missing_ok=True)
    known: dict[str, Result] = {}
    for line in keep.read_text(encoding="utf-8").splitlines() if keep.exists() else ():
        key, value = msgspec.json.decode(line, type=tuple[str, Result])
        known[key] = value
    for row in () if chosen.table else rows(quick=chosen.quick):
        result = known.get(row.key)
        if (result and not result.wrong and result.module == source_state()) or chosen.only not in row.key:
            continue
        try:
            found = experiment(row)
        except EjectableError as error:
            print(f"{row.key}: {error.message} {error.hint or ''}", flush=True)
            continue
        if found.wrong.startswith(NO_BOOT):  # on a host that is too busy: it shows nothing
            print(f"{row.key}: {found.wrong}", flush=True)
            continue
        known[row.key] = found
        with keep.open("a", encoding="utf-8") as file:
            file.write(msgspec.json.encode((row.key, known[row.key])).decode() + "\n")
        print(f"{row.key}: {known[row.key].wrong or f'{known[row.key].unplugged} unplugged'}", flush=True)
    every = {row.key: row for quick in (False, True) for row in rows(quick=quick)}
    text, wrong = page([(row, known[key]) for key, row in every.items() if key in known], KERNELS)
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET}: {wrong} against the claim")
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
