# SPDX-License-Identifier: GPL-2.0-or-later
"""Other stories than the lab's own can be told: modules that are loaded later, a slot that is empty at first."""

import asyncio
from pathlib import Path

import pytest

from ejectable.lab.busybox import busybox
from ejectable.lab.case import Case
from ejectable.lab.experiment import Experiment, Outcome, Story
from ejectable.lab.kernels import open_kernel
from ejectable.lab.rig import Refused, Rig

pytestmark = [pytest.mark.guest, pytest.mark.kernels]


def tell(package: Path, story: Story, *, plugged: bool = True, modules: Path | None = None) -> Outcome:
    kernel = open_kernel(str(package), modules=str(modules) if modules else None)
    carried = [kernel.modules.load("virtio_balloon")]
    experiment = Experiment(
        kernel, Case("pc"), busybox=busybox(kernel.arch), carried=carried, plugged=plugged, story=story
    )
    return asyncio.run(experiment.run())


def test_modules_come_and_go_around_a_device_that_is_plugged_late(stock: Path) -> None:
    seen: list[str] = []

    async def story(rig: Rig) -> None:
        assert "virtio_balloon" not in await rig.read("/proc/modules")
        with pytest.raises(Refused, match="virtio_balloon"):
            await rig.unload("virtio_balloon")
        for _ in range(2):
            await rig.load("virtio_balloon")
            assert "virtio_balloon" in await rig.read("/proc/modules")
            await rig.plug()
            seen.append((await rig.use()).driver or "")
            await rig.unplug()
            await rig.unload("virtio_balloon")
        seen.append(await rig.run_command("echo 'two  words' | busybox wc -c"))
        seen.extend(line for line in rig.log if "[vda]" in line)
        assert not rig.events

    outcome = tell(stock, story, plugged=False)
    assert (outcome.result, outcome.driven) == ("survived", "legacy"), outcome.detail
    assert seen[:3] == ["virtio_blk", "virtio_blk", "11"]
    assert len(seen) == 5


def test_a_story_ends_where_the_guest_does(stock: Path, faulty: Path) -> None:
    steps: list[str] = []

    async def story(rig: Rig) -> None:
        await rig.use()
        steps.append("used")
        await rig.unplug()
        steps.append("not reached")

    outcome = tell(stock, story, modules=faulty)
    assert (outcome.result, steps) == ("oops", ["used"])
    assert [event.function for event in outcome.events] == ["vp_del_vqs"]
