# SPDX-License-Identifier: GPL-2.0-or-later
"""The module in real kernels: the unplug that crashes goes through with it, and it will not stay where it must not."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corpus.archive import fetch
from corpus.live_modules import for_debian, target_of_debian, trouble_for_debian
from corpus.live_proof import experiment
from corpus.live_table import Row
from corpus.modules import faulty_module
from corpus.trees import headers
from ejectable.lab.busybox import busybox
from ejectable.lab.case import Case
from ejectable.lab.experiment import Experiment, Outcome, Story
from ejectable.lab.kernels import open_kernel
from ejectable.lab.modules import Module
from ejectable.lab.rig import Refused, Rig
from ejectable.lab.running import Over
from ejectable.remedies.live.build import build
from ejectable.remedies.live.target import Target
from ejectable.remedies.live.toolchain import compiler_for, read_headers

RELEASE = "6.1.0-50-cloud-amd64"
pytestmark = [pytest.mark.guest, pytest.mark.kernels]


def built(target: Target, folder: Path, name: str) -> Module:
    place = folder / name
    place.mkdir()
    found = read_headers(headers(RELEASE), RELEASE)
    return Module(name, build(target, place, found, compiler_for(found)).read_bytes())


def told(story: Story, carried: list[Module], *, plugged: bool = True) -> Outcome:
    package, module = fetch(f"linux-image-{RELEASE}"), faulty_module(RELEASE)
    kernel = open_kernel(str(package), modules=str(module.parent))
    program = busybox(kernel.arch)
    run = Experiment(kernel, Case("pc"), busybox=program, carried=carried, plugged=plugged, story=story)
    return asyncio.run(run.run())


def test_the_unplug_that_crashed_goes_through_with_the_module_and_crashes_again_without_it() -> None:
    result = experiment(Row(RELEASE, "pc", "disk", "acpi-eject"))
    assert not result.wrong
    assert (result.unplugged, result.without) == (2, "oops: null-call in vp_del_vqs")


def test_the_module_refuses_what_it_was_not_built_for(tmp_path: Path) -> None:
    target = target_of_debian(RELEASE)
    # The layout of another build: where it has is_avq, this one has a member that is empty. What is beside it tells.
    lines = [re.sub(r"\b(?:10[78]\d|109\d)\b", lambda at: str(int(at[0]) - 96), line) for line in target.hook.lines]
    assert lines != list(target.hook.lines)
    layout = msgspec.structs.replace(target.hook, lines=tuple(lines))
    ids = "the build-ids in sysfs are not those that this module was built for (-8): refused"
    changed: dict[str, tuple[dict[str, Any], str]] = {
        "other_build": ({"version": "#1 SMP another build"}, f"built for {RELEASE} #1 SMP another build: refused"),
        "other_layout": ({"hook": layout}, "not as this module was built for: nothing was changed"),
        "other_kernel_id": ({"build_id": "ab" * 20}, ids),
        "other_driver_id": ({"driver_build_id": "ab" * 20}, ids),
    }
    carried = [built(msgspec.structs.replace(target, **what), tmp_path, name) for name, (what, _) in changed.items()]

    async def story(rig: Rig) -> None:
        await rig.use()
        for name, (_, why) in changed.items():
            with pytest.raises(Refused):
                await rig.load(name)
            assert "ejectable_live" not in await rig.read("/proc/modules")
            assert why in [line for line in rig.log if " ejectable_live:" in line or "virtio" in line][-1]
        assert not rig.events
        await rig.use()

    outcome = told(story, carried)
    assert outcome.result == "survived", outcome.detail


def test_a_device_that_is_plugged_into_an_empty_machine_after_loading_is_repaired_as_it_comes() -> None:
    async def story(rig: Rig) -> None:
        await rig.load("ejectable_live")
        await rig.plug()
        await rig.use()
        await rig.unplug()
        await rig.unload("ejectable_live")
        assert not rig.events

    outcome = told(story, [Module("ejectable_live", for_debian(RELEASE).read_bytes())], plugged=False)
    assert (outcome.result, outcome.driven) == ("survived", "legacy"), outcome.detail


def with_trouble() -> list[Module]:
    modules = (("ejectable_live", for_debian(RELEASE)), ("trouble", trouble_for_debian(RELEASE)))
    return [Module(name, path.read_bytes()) for name, path in modules]


async def parameter(rig: Rig, name: str) -> str:
    return (await rig.read(f"/sys/module/ejectable_live/parameters/{name}")).strip()


def test_unloading_waits_for_nobody_and_is_refused_while_a_pointer_is_filled() -> None:
    async def story(rig: Rig) -> None:
        await rig.use()
        # virtio_pci goes and comes back: the module lets it go, and is there again before its first device.
        await rig.load("ejectable_live")
        await rig.run_command("rmmod virtio_pci")
        assert (await parameter(rig, "armed"), await parameter(rig, "acted")) == ("N", "1")
        await rig.load("virtio_pci")
        assert await parameter(rig, "armed") == "Y"
        # A thread has the lock of another PCI device, and never lets go of it.
        await rig.load("trouble", "hold=0000:00:01.0", "pause=5000")
        await asyncio.wait_for(rig.run_command("rmmod ejectable_live"), 60)
        await rig.load("ejectable_live")
        await rig.use()
        # vp_del_vqs() takes its time.
        going = asyncio.create_task(rig.unplug())
        for _ in range(600):
            if any("in the middle of vp_del_vqs()" in line for line in rig.log):
                break
            await asyncio.sleep(0.05)
        assert (await rig.read("/sys/module/ejectable_live/refcnt")).strip() == "1"
        with pytest.raises(Refused, match="temporarily unavailable"):
            await rig.run_command("rmmod ejectable_live")
        await going
        assert [await parameter(rig, name) for name in ("acted", "missed", "refused")] == ["1", "0", "0"]
        await rig.run_command("rmmod ejectable_live")
        assert not rig.events

    outcome = told(story, with_trouble())
    assert outcome.result == "survived", outcome.detail


def test_a_thread_that_died_in_the_middle_keeps_the_module_in_and_lets_nobody_wait() -> None:
    unload = (
        "(sleep 4; timeout 20 rmmod ejectable_live >/dev/null 2>&1; echo LATE: $? >/dev/kmsg;"
        " grep ejectable_live /proc/modules >/dev/kmsg) >/dev/null 2>&1 &"
    )
    seen: list[str] = []

    async def story(rig: Rig) -> None:
        await rig.use()
        await rig.load("ejectable_live")
        await rig.load("trouble", "die=1")
        await rig.run_command(unload)
        with contextlib.suppress(Over):
            await rig.unplug()
        for _ in range(600):
            await asyncio.sleep(0.1)
            seen[:] = [line for line in rig.log if "LATE:" in line or " - Live 0x" in line]
            if len(seen) > 1:
                return

    told(story, with_trouble())
    late, still = (line.partition("] ")[2] for line in seen)
    assert late.startswith("LATE: 1")
    assert re.match(r"ejectable_live \d+ 1 - Live", still)
