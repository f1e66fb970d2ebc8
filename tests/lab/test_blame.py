# SPDX-License-Identifier: GPL-2.0-or-later
"""A real kernel that dies of something else is told for that: beside the unplug, in use; and words kill nothing."""

import asyncio
from pathlib import Path

import pytest

from ejectable.lab.busybox import busybox
from ejectable.lab.case import Case
from ejectable.lab.experiment import Experiment, Outcome, Story
from ejectable.lab.kernels import open_kernel
from ejectable.lab.rig import Rig

pytestmark = [pytest.mark.guest, pytest.mark.kernels]
CRASH = "echo c >/proc/sysrq-trigger"


def tell(package: Path, story: Story) -> Outcome:
    kernel = open_kernel(str(package))
    return asyncio.run(Experiment(kernel, Case("pc"), busybox=busybox(kernel.arch), story=story).run())


def test_a_sysrq_crash_beside_the_unplug_is_not_the_unplugs(stock: Path) -> None:
    async def story(rig: Rig) -> None:
        await rig.use()
        await rig.unplug()
        # Until the next mark, all that happens is "after".
        await rig.run_command(CRASH)

    outcome = tell(stock, story)
    assert (outcome.result, outcome.advisory, outcome.inconclusive) == ("crashed-otherwise", None, True)
    (event,) = [event for event in outcome.attributed if event.fatal][:1]
    assert (event.phase, event.kind, event.removal) == ("after", "panic", False)
    assert "sysrq_handle_crash" in event.trace


def test_a_crash_in_use_belongs_to_its_phase_and_words_in_the_log_to_nobody(stock: Path) -> None:
    seen: list[bool] = []

    async def story(rig: Rig) -> None:
        await rig.use()
        await rig.run_command("echo '<3>mydrv: BUG: the firmware; Internal error: none; Oops: none' >/dev/kmsg")
        await rig.cycle()
        seen.append(rig.running.console.crash_begun.is_set())
        await rig.run_command(CRASH)

    outcome = tell(stock, story)
    assert seen == [False]
    assert outcome.cycles == 1
    assert (outcome.result, outcome.advisory) == ("crashed-otherwise", None)
    assert {(event.phase, event.removal) for event in outcome.attributed} == {("use", False)}
    assert outcome.crash is not None
    assert outcome.crash.kind == "panic"
    assert "while the device was used" in outcome.detail
