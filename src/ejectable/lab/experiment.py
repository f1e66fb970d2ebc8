# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: boot, unplug, look, plug again. Reads like the experiment it is."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from ejectable.lab import guest
from ejectable.lab.case import GUEST_SIDE, Case, Result
from ejectable.lab.console import Console
from ejectable.lab.devices import KINDS
from ejectable.lab.guest import View
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.machines import ARCHES, command_line, parts
from ejectable.lab.modules import Module
from ejectable.lab.qemu import Qemu, in_memory, program
from ejectable.lab.qmp import Qmp, QmpRefused
from ejectable.lab.running import Late, Limits, Over, RunningGuest
from ejectable.lab.watch import CrashWatch
from ejectable.model import Event

__all__ = ["Experiment", "Limits", "Outcome"]

POLL_S = 0.1
WAKE_S = 0.5  # between two bytes that are to wake a sleeping guest
GETTING_GOING_S = 0.2  # I/O needs a moment until there is always some in flight
BALLOON_BYTES = 16 << 20


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to."""

    result: Result
    detail: str
    accelerator: Literal["kvm", "tcg"]
    boot_s: float | None
    verdict_s: float | None
    cycles: int  # that were completed
    driven: Literal["legacy", "modern"] | None  # as the guest drove the device, where it was seen
    alive: bool | None  # whether the guest still answered after an Oops
    events: tuple[Event, ...]
    tail: tuple[str, ...]  # the last lines of the console
    internal_error: bool = False  # KVM gave up
    problems: tuple[str, ...] = ()
    release: str | None = None


class Experiment:
    """One case on one kernel; `extra` modules are loaded behind the drivers.

    `tell` is called with a word for each stage, for whoever watches.
    """

    def __init__(
        self,
        kernel: GuestKernel,
        case: Case,
        *,
        busybox: bytes,
        extra: Sequence[Module] = (),
        accelerator: Literal["kvm", "tcg"] = "tcg",
        repeat: int = 1,
        limits: Limits | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kernel = kernel
        self.case = case
        self.limits = limits or Limits()
        self.console_transcript = b""  # what came from the guest's console, up to a limit
        self.qmp_transcript = ""  # what was said to QEMU and by it, behind the seconds since its start
        self._initramfs = guest.build(kernel, case, busybox, extra)
        self._accelerator: Literal["kvm", "tcg"] = accelerator
        self._repeat = repeat
        self._tell = tell
        self._generation = 0
        self._cycles = 0
        self._driven: Literal["legacy", "modern"] | None = None
        self._guest: RunningGuest

    async def run(self) -> Outcome:
        """Do it. Raises `Missing` where QEMU cannot be started; leaves nothing behind, however it ends."""
        limit = self.limits.boot + self._repeat * self.limits.cycle
        program(ARCHES[self.case.machine])
        token = f"ejectable-{secrets.token_hex(4)}"
        started = time.monotonic()
        qmp = Qmp(started=started)
        console = Console(token, started=started, watch=CrashWatch(self.case.name))
        qemu = await self._start(token, limit)
        self._guest = RunningGuest(qemu, qmp, console, limits=self.limits, panics=self.case.panic_on_oops == 1)
        listening = asyncio.ensure_future(self._guest.listen())
        try:
            async with asyncio.timeout(limit):
                verdict = await self._story()
        except TimeoutError:
            late: Result = "hang" if self._guest.triggered else self._guest.unfinished
            verdict = Over(late, f"it took longer than {limit:.0f} s in all")
        finally:
            verdict_s = time.monotonic() - started
            await qmp.close()
            await qemu.stop()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        events = console.finish()
        self.console_transcript = console.transcript
        self.qmp_transcript = "".join(f"{line}\n" for line in qmp.transcript)
        return Outcome(
            result=verdict.result,
            detail=verdict.detail,
            accelerator=self._accelerator,
            boot_s=console.boot_s,
            verdict_s=verdict_s if verdict.result != "no-boot" else None,
            cycles=self._cycles,
            driven=self._driven,
            alive=self._guest.alive,
            events=events,
            tail=tuple(console.tail),
            internal_error=qemu.internal_error,
            problems=tuple(console.problems),
            release=console.release,
        )

    async def _start(self, token: str, limit_s: float) -> Qemu:
        image = in_memory("kernel", self.kernel.image)
        initramfs = in_memory("initramfs", self._initramfs)
        try:
            return await Qemu.start(
                lambda console_fd, qmp_fd: command_line(
                    self.case,
                    accelerator=self._accelerator,
                    kernel=f"/proc/self/fd/{image}",
                    initramfs=f"/proc/self/fd/{initramfs}",
                    append=guest.command_line(self.case, token),
                    console_fd=console_fd,
                    qmp_fd=qmp_fd,
                ),
                inherit=(image, initramfs),
                limit_s=limit_s,
            )
        finally:
            os.close(image)
            os.close(initramfs)

    # The story

    async def _story(self) -> Over:
        try:
            await self._boot()
            view = await self._device_works()
            for _ in range(self._repeat):
                await self._unplug(view)
                await self._plug()
                view = await self._device_works()
                self._cycles += 1
        except Over as verdict:
            return verdict
        went = "slept and woke" if self.case.trigger == "suspend" else "went away"
        times = "" if self._repeat == 1 else f", {self._repeat} times over"
        return Over("survived", f"the device {went}, and a new one was plugged and used{times}")

    async def _boot(self) -> None:
        self._tell("booting")
        running = self._guest
        try:
            await running.qmp.connect(running.qemu.qmp, limit_s=self.limits.boot)
        except (ConnectionError, TimeoutError):
            raise Over("no-boot", await running.ended("it never answered")) from None
        try:
            await running.until(running.console.hello.wait(), self.limits.boot, watch_silence=True)
            await running.until(running.console.up.wait(), self.limits.device)
        except Late:
            booted = running.console.hello.is_set()
            what = "its modules never finished loading" if booted else "user space was not reached"
            raise Over("no-boot", what + running.last_line()) from None

    async def _device_works(self) -> View:
        """Wait until the guest has the device and can use it; as the guest sees it then."""
        running = self._guest
        self._tell("using the device")
        try:
            view = await running.until(self._bound(), self.limits.device)
        except Late:
            problem = f": {running.console.problems[0]}" if running.console.problems else ""
            raise await running.dead_or(f"no driver of the guest took the device{problem}") from None
        self._driven = "modern" if view.version_1 else "legacy"
        try:
            said = await running.ask(f"use {self.case.device} {view.name}", self.limits.use)
        except Late:
            raise await running.dead_or("the device could not be used: no answer came") from None
        if said != "ok":
            raise await running.dead_or(f"the device could not be used: {said}")
        await self._used_from_outside()
        if self.case.under_io:
            await running.ask(f"busy {self.case.device} {view.name}", self.limits.heartbeat)
            await asyncio.sleep(GETTING_GOING_S)
        return view

    async def _unplug(self, view: View) -> None:
        """Pull the trigger, and see the device gone on both sides."""
        self._tell(self.case.trigger)
        self._guest.triggered = True
        try:
            if self.case.trigger == "suspend":
                await self._suspend()
            elif self.case.trigger in GUEST_SIDE:
                await self._inside(view)
            await self._device_del()
            await self._guest.until(self._gone(), self.limits.unplug)
        except Late:
            raise await self._guest.dead_or("the device did not go away") from None

    async def _inside(self, view: View) -> None:
        """A trigger that is pulled in the guest."""
        verb = {
            "sysfs-remove": f"remove {view.address}",
            "pci-unbind": f"unbind-pci {view.address}",
            "virtio-unbind": f"unbind-virtio {view.name} {view.driver}",
            "module-unload": f"rmmod {KINDS[self.case.device].module}",
        }[self.case.trigger]
        said = await self._guest.ask(verb, self.limits.unplug)
        if said != "ok":
            # A caller that was killed by an Oops reports a failure too, a moment before the Oops is told to its end.
            await self._guest.calm()
            raise Over("no-unplug", f"the guest could not do it: {said}")
        await self._guest.until(self._gone(driver_only=True), self.limits.unplug)

    async def _suspend(self) -> None:
        """Suspend to idle, then wake the guest by bytes on its serial port; it must have its device as before."""
        running = self._guest
        answer = running.console.answer(running.send("suspend"))
        deadline = time.monotonic() + self.limits.unplug
        while not answer.done() and time.monotonic() < deadline:
            with suppress(Late):
                await running.until(asyncio.shield(answer), WAKE_S)
            running.write(b"\n")
        if not answer.done():
            raise Late
        if answer.result() != "ok":
            await running.calm()
            raise Over("no-unplug", f"the guest could not suspend: {answer.result()}")
        await self._device_works()

    async def _device_del(self) -> None:
        """Ask QEMU for the device back, once more if the guest did not hear; wait until it is gone there."""
        running = self._guest
        device = parts(self.case, self._generation)
        for attempt in range(2):
            try:
                await running.qmp.execute("device_del", {"id": device.identity})
            except QmpRefused as refused:
                if not attempt:
                    raise Over("no-unplug", f"QEMU refused: {refused}") from None
            except (ConnectionError, TimeoutError):
                raise Over("no-unplug", await running.ended("its control channel broke")) from None
            with suppress(Late):
                event = await running.until(self._unplugged(device.identity), self.limits.unplug / 2)
                if event["event"] == "DEVICE_UNPLUG_GUEST_ERROR":
                    raise Over("no-unplug", "the guest refused: QEMU sent DEVICE_UNPLUG_GUEST_ERROR")
                await self._drop_backend()
                return
        raise Late

    async def _plug(self) -> None:
        """A new device into the same slot."""
        self._tell("plugging a new one")
        self._generation += 1
        qmp = self._guest.qmp
        device = parts(self.case, self._generation)
        try:
            if device.backend is not None:
                await qmp.execute(*device.backend)
            for properties in device.devices:
                await qmp.execute("device_add", properties)
        except QmpRefused as refused:
            raise Over("no-unplug", f"QEMU would not plug a new device: {refused}") from None
        except (ConnectionError, TimeoutError):
            raise Over("no-unplug", await self._guest.ended("its control channel broke")) from None
        if self.case.trigger == "module-unload":
            try:
                await self._guest.ask(f"insmod {KINDS[self.case.device].module}", self.limits.use)
            except Late:
                raise await self._guest.dead_or("the driver could not be loaded again") from None

    # What the story is made of

    async def _bound(self) -> View:
        while True:
            for view in await self._see():
                if view.ready and view.driver == KINDS[self.case.device].driver:
                    return view
            await asyncio.sleep(POLL_S)

    async def _gone(self, *, driver_only: bool = False) -> None:
        while True:
            views = await self._see()
            if not any(view.driver or not driver_only for view in views):
                return
            await asyncio.sleep(POLL_S)

    async def _see(self) -> tuple[View, ...]:
        return guest.parse_view(await self._guest.ask("see", self.limits.heartbeat))

    async def _unplugged(self, identity: str) -> dict[str, Any]:
        return await self._guest.qmp.event(
            "DEVICE_DELETED",
            "DEVICE_UNPLUG_GUEST_ERROR",
            when=lambda data: data.get("device") == identity,
        )

    async def _drop_backend(self) -> None:
        """Give back what stood behind the device that is gone."""
        backend = parts(self.case, self._generation).backend
        if backend is None:
            return
        command, values = backend
        undo = {"blockdev-add": "blockdev-del", "netdev_add": "netdev_del", "chardev-add": "chardev-remove"}[command]
        key = "node-name" if command == "blockdev-add" else "id"
        for _ in range(20):
            with suppress(QmpRefused, ConnectionError, TimeoutError):
                await self._guest.qmp.execute(undo, {key: values[key]})
                return
            await asyncio.sleep(POLL_S)  # what hung on the device lets go a moment later

    async def _used_from_outside(self) -> None:
        """What only the other side of a device can tell: a balloon swells, a console's words arrive."""
        qmp = self._guest.qmp
        try:
            if self.case.device == "balloon":
                full = (await qmp.execute("query-balloon"))["actual"]
                await qmp.execute("balloon", {"value": full - BALLOON_BYTES})
                await self._guest.until(self._balloon_is_not(full), self.limits.use)
                await qmp.execute("balloon", {"value": full})
            elif self.case.device == "console":
                said = await qmp.execute("ringbuf-read", {"device": f"backend{self._generation}", "size": 4096})
                if not said.strip():
                    raise Over("no-unplug", "the console could not be used: nothing arrived")
        except Late:
            raise await self._guest.dead_or("the balloon did not move") from None
        except QmpRefused as refused:
            raise Over("no-unplug", f"QEMU could not use the device: {refused}") from None
        except (ConnectionError, TimeoutError):
            raise Over("no-unplug", await self._guest.ended("its control channel broke")) from None

    async def _balloon_is_not(self, size: int) -> None:
        while True:
            if (await self._guest.qmp.execute("query-balloon"))["actual"] != size:
                return
            await asyncio.sleep(POLL_S)
