# SPDX-License-Identifier: GPL-2.0-or-later
"""One attempt: starts a guest, tells a story to it (by default: unplug, plug, use again), and gives its `Outcome`."""

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Literal

from ejectable.lab import guest
from ejectable.lab.attribution import attribute
from ejectable.lab.case import Case, Result
from ejectable.lab.console import Console
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.machines import ARCHES, command_line
from ejectable.lab.modules import Module
from ejectable.lab.outcome import Outcome, conclude
from ejectable.lab.qemu import Qemu, in_memory, program
from ejectable.lab.qmp import Qmp
from ejectable.lab.rig import Refused, Rig
from ejectable.lab.running import MOST_PATIENCE, Late, Limits, Over, RunningGuest
from ejectable.lab.watch import CrashWatch

__all__ = ["Experiment", "Limits", "Outcome", "Story"]

# What is done to a guest that has booted. It ends quietly, or early with `Over`.
Story = Callable[[Rig], Awaitable[None]]


class Experiment:
    """One case on one kernel; `extra` modules are loaded behind the drivers, `carried` ones only by a story.

    `story` is what happens once the guest is up: unplugging and plugging `repeat` times, unless another one is
    told. With `plugged` false the guest boots with an empty slot, with `wordy` it speaks as early as
    it can. `tell` is called with a word for each stage, for whoever watches.
    """

    def __init__(
        self,
        kernel: GuestKernel,
        case: Case,
        *,
        busybox: bytes,
        extra: Sequence[Module] = (),
        carried: Sequence[Module] = (),
        accelerator: Literal["kvm", "tcg"] = "tcg",
        repeat: int = 1,
        plugged: bool = True,
        wordy: bool = False,
        story: Story | None = None,
        limits: Limits | None = None,
        advisories: Sequence[str] = (),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kernel = kernel
        self.case = case
        self.limits = limits or Limits()
        self.console_transcript = b""  # what came from the guest's console, up to a limit
        self.qmp_transcript = ""  # what was said to QEMU and by it, behind the seconds since its start
        self._initramfs = guest.build(kernel, case, busybox, extra, carried)
        self._accelerator: Literal["kvm", "tcg"] = accelerator
        self._repeat = repeat
        self._plugged = plugged
        self._wordy = wordy
        self._story: Story = story or self._unplug_and_plug
        self._tell = tell
        self._advisories = tuple(advisories)

    async def run(self) -> Outcome:
        """What the attempt came to. Raises `Missing` where QEMU cannot be started; leaves no process behind."""
        limit = self.limits.boot + self._repeat * self.limits.cycle * MOST_PATIENCE
        program(ARCHES[self.case.machine])
        token = f"ejectable-{secrets.token_hex(4)}"
        started = time.monotonic()
        qmp = Qmp(started=started)
        console = Console(token, started=started, watch=CrashWatch(self.case.name))
        qemu = await self._start(token, limit)
        running = RunningGuest(
            qemu, qmp, console, limits=self.limits, panics=self.case.panic_on_oops == 1, tell=self._tell
        )
        rig = Rig(running, self.case, plugged=self._plugged)
        listening = asyncio.ensure_future(running.listen())
        try:
            async with asyncio.timeout(limit):
                verdict = await self._verdict(rig)
        except TimeoutError:
            late: Result = "hang" if running.triggered else running.unfinished
            verdict = Over(late, f"it took longer than {limit:.0f} s in all")
        finally:
            verdict_s = time.monotonic() - started
            rig.rest()
            qemu_failed = qemu.process.returncode not in (None, 0)  # 0: the guest shut down, or fell over (-no-reboot)
            await qmp.close()
            await qemu.stop()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        events = console.finish()
        self.console_transcript = console.transcript
        self.qmp_transcript = "".join(f"{line}\n" for line in qmp.transcript)
        attributed = attribute(events, console.marks, self._advisories)
        result, detail = conclude(verdict.result, verdict.detail, attributed)
        return Outcome(
            result=result,
            detail=detail,
            accelerator=self._accelerator,
            boot_s=console.boot_s,
            verdict_s=verdict_s if result != "no-boot" else None,
            cycles=rig.cycles,
            driven=rig.driven,
            alive=running.alive,
            events=events,
            tail=tuple(console.tail),
            internal_error=qemu.internal_error,
            problems=tuple(console.problems),
            release=console.release,
            attributed=attributed,
            triggered=running.triggered,
            qemu_failed=qemu_failed,
        )

    async def _start(self, token: str, limit_s: float) -> Qemu:
        with ExitStack() as files:
            image = in_memory("kernel", self.kernel.image)
            files.callback(os.close, image)
            initramfs = in_memory("initramfs", self._initramfs)
            files.callback(os.close, initramfs)
            return await Qemu.start(
                lambda console_fd, qmp_fd: command_line(
                    self.case,
                    accelerator=self._accelerator,
                    kernel=f"/proc/self/fd/{image}",
                    initramfs=f"/proc/self/fd/{initramfs}",
                    append=guest.command_line(self.case, token, wordy=self._wordy),
                    console_fd=console_fd,
                    qmp_fd=qmp_fd,
                    page_kib=self.kernel.page_kib,
                    plugged=self._plugged,
                ),
                inherit=(image, initramfs),
                limit_s=limit_s,
            )

    async def _verdict(self, rig: Rig) -> Over:
        try:
            await rig.boot()
            await self._story(rig)
        except Over as verdict:
            return verdict
        except Refused as refused:
            return Over("no-unplug", f"the guest could not do it: {refused}")
        except Late:
            return await rig.running.dead_or("a step of the story took too long")
        if not rig.cycles:
            return Over("survived", "the story was told to its end, and the guest lived")
        went = "slept and woke" if self.case.trigger == "suspend" else "went away"
        times = "" if rig.cycles == 1 else f", {rig.cycles} times over"
        return Over("survived", f"the device {went}, and a new one was plugged and used{times}")

    async def _unplug_and_plug(self, rig: Rig) -> None:
        await rig.use()
        for _ in range(self._repeat):
            await rig.cycle()
