# SPDX-License-Identifier: GPL-2.0-or-later
"""The module in real kernels: the unplug that crashes goes through with it, and it will not stay where it must not."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from corpus.archive import fetch
from corpus.live_modules import for_debian, target_of_debian
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
    # Eight bytes before the member stands another pointer of the device, which is never empty.
    layout = msgspec.structs.replace(target.layout, is_avq=target.layout.is_avq - 8)
    carried = [
        built(msgspec.structs.replace(target, version="#1 SMP another build"), tmp_path, "other_build"),
        built(msgspec.structs.replace(target, layout=layout), tmp_path, "other_layout"),
    ]
    said: list[str] = []

    async def story(rig: Rig) -> None:
        await rig.use()
        for module in carried:
            with pytest.raises(Refused):
                await rig.load(module.name)
            assert "ejectable_live" not in await rig.read("/proc/modules")
        said.extend(line for line in rig.log if "ejectable_live:" in line)
        assert not rig.events
        await rig.use()

    outcome = told(story, carried)
    assert outcome.result == "survived", outcome.detail
    assert "built for 6.1.0-50-cloud-amd64 #1 SMP another build: refused" in " ".join(said)
    assert "not as this module was built for: nothing was changed" in " ".join(said)


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
