# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a story: boot a guest, use its device, take the device away, plug another one.

Every step waits for its effect on both sides, and ends early in one of two ways: `Over`, the run has come to its
result, or (only where it is said) `Late`.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, Literal

from ejectable.lab import guest
from ejectable.lab.case import GUEST_SIDE, Case
from ejectable.lab.devices import KINDS
from ejectable.lab.guest import View
from ejectable.lab.machines import MEMORY_MIB, parts
from ejectable.lab.qmp import QmpRefused
from ejectable.lab.running import Late, Over, RunningGuest
from ejectable.model import Event, Phase

__all__ = ["Refused", "Rig"]

POLL_S = 0.1
WAKE_S = 0.5  # between two bytes that are to wake a sleeping guest
GETTING_GOING_S = 0.2  # I/O needs a moment until there is always some in flight
BALLOON_BYTES = 16 << 20
PUMP_S = 0.02  # between two sizes that a busy balloon is asked for


class Refused(Exception):
    """The guest could not do what it was told; the text is its own."""


class Rig:
    """The steps of a story. `view` is the device as the guest last saw it working, `cycles` counts plugging."""

    def __init__(self, running: RunningGuest, case: Case, *, plugged: bool = True) -> None:
        self.running = running
        self.case = case
        self.view: View | None = None
        self.driven: Literal["legacy", "modern"] | None = None  # as the guest drove it, where it was seen
        self.cycles = 0
        self._generation = 0 if plugged else -1
        self._refusal = ""  # QEMU's, of a request that was repeated
        self._pump: asyncio.Task[None] | None = None  # keeps a balloon busy

    # Steps of a story

    async def boot(self) -> None:
        """Wait until user space is there and its modules are loaded."""
        self.running.tell("booting")
        running = self.running
        try:
            await running.qmp.connect(running.qemu.qmp, limit_s=running.limits.boot)
        except (ConnectionError, TimeoutError):
            raise Over("no-boot", await running.ended("it never answered")) from None
        try:
            await running.until(running.console.hello.wait(), running.limits.boot, watch_silence=True)
            await running.until(running.console.up.wait(), running.limits.device)
        except Late:
            booted = running.console.hello.is_set()
            what = "its modules never finished loading" if booted else "user space was not reached"
            raise Over("no-boot", what + running.last_lines()) from None
        running.limits = running.limits.after(running.console.boot_s or 0.0)

    async def use(self) -> View:
        """Wait until the guest has the device and can use it; as the guest sees it then."""
        running = self.running
        running.tell("using the device")
        self.rest()
        await self._mark("use")
        try:
            view = await running.until(self._bound(), running.limits.device)
        except Late:
            problem = f": {running.console.problems[0]}" if running.console.problems else ""
            raise await running.dead_or(f"no driver of the guest took the device{problem}") from None
        self.view, self.driven = view, "modern" if view.version_1 else "legacy"
        try:
            said = await running.ask(f"use {self.case.device} {view.name}", running.limits.use)
        except Late:
            raise await running.dead_or("the device could not be used: no answer came") from None
        if said != "ok":
            raise await running.dead_or(f"the device could not be used: {said}")
        await self._used_from_outside()
        if self.case.under_io:
            if self.case.device == "balloon":  # which only the host can move
                self._pump = asyncio.create_task(self._pump_balloon())
            else:
                await running.ask(f"busy {self.case.device} {view.name}", running.limits.heartbeat)
            await asyncio.sleep(GETTING_GOING_S)
        return view

    async def unplug(self) -> None:
        """Pull the case's trigger, and see the device gone on both sides."""
        self.running.tell(self.case.trigger)
        running = self.running
        view = self.view or await self.use()
        await self._mark("trigger")
        try:
            if self.case.trigger == "suspend":
                await self._suspend()
            elif self.case.trigger in GUEST_SIDE:
                await self._inside(view)
            await self._device_del()
            await running.until(self._gone(), running.limits.unplug)
        except Late:
            raise await running.dead_or(f"the device did not go away{self._refusal}") from None
        self.rest()
        self.view = None
        await self._mark("after")

    async def plug(self) -> None:
        """A new device into the same slot."""
        self.running.tell("plugging a new one")
        await self._mark("plug")
        self._generation += 1
        qmp = self.running.qmp
        device = parts(self.case, self._generation)
        try:
            if device.backend is not None:
                await qmp.execute(*device.backend)
            for properties in device.devices:
                await qmp.execute("device_add", properties)
        except QmpRefused as refused:
            raise Over("no-unplug", f"QEMU would not plug a new device: {refused}") from None
        except (ConnectionError, TimeoutError):
            raise Over("no-unplug", await self.running.ended("its control channel broke")) from None
        if self.case.trigger == "module-unload" and self._generation:
            try:
                await self.load(KINDS[self.case.device].module)
            except Refused as refused:
                raise Over("no-unplug", f"the driver could not be loaded again: {refused}") from None

    def rest(self) -> None:
        """End what keeps a device busy from outside; what the guest does ends with the device."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    async def cycle(self) -> None:
        """Unplug the device that works, plug another, and see that one work."""
        await self.unplug()
        await self.plug()
        await self.use()
        self.cycles += 1

    async def idle(self, seconds: float) -> None:
        """Leave the guest and its device alone for so long, and see it live."""
        with suppress(Late):
            await self.running.until(asyncio.Event().wait(), seconds, watch_heart=True)
        try:
            await self.running.ask("ping", self.running.limits.heartbeat)
        except Late:
            raise await self.running.dead_or("nothing was unplugged") from None

    async def load(self, module: str, *parameters: str) -> None:
        """Load a module that the guest carries (see `Experiment`); raises `Refused` where the kernel says no."""
        await self._tell_guest(" ".join(("insmod", module, *parameters)))

    async def unload(self, module: str) -> None:
        """Take a module out again; raises `Refused` where the kernel says no."""
        await self._tell_guest(f"rmmod {module}")

    async def read(self, path: str) -> str:
        """What a file of the guest says (of /proc or /sys, say), its lines joined with spaces. Raises `Refused`."""
        return await self._tell_guest(f"read {path}")

    async def run_command(self, command: str) -> str:
        """What a busybox command says on its output in the guest, lines joined with spaces; raises `Refused`."""
        return await self._tell_guest(f"sh {command}")

    @property
    def events(self) -> tuple[Event, ...]:
        """What the crash reader has made of the console so far, warnings too."""
        return self.running.console.events

    @property
    def log(self) -> list[str]:
        """The console so far, line by line, without our own."""
        return self.running.console.kernel_lines

    # What the steps are made of

    async def _mark(self, phase: Phase) -> None:
        try:
            await self.running.mark(phase)
        except Late:
            raise await self.running.dead_or("the guest's kernel log took no mark") from None

    async def _tell_guest(self, words: str) -> str:
        try:
            said = await self.running.ask(words, self.running.limits.use)
        except Late:
            raise await self.running.dead_or(f"the guest did not finish `{words}`") from None
        verdict, _, output = said.partition(" ")
        if verdict != "ok":
            # A caller that was killed by an Oops reports a failure too, a moment before the Oops is told to its end.
            await self.running.calm()
            raise Refused(output or "no reason was given")
        return output

    async def _inside(self, view: View) -> None:
        """A trigger that is pulled in the guest."""
        verb = {
            "sysfs-remove": f"remove {view.address}",
            "pci-unbind": f"unbind-pci {view.address}",
            "virtio-unbind": f"unbind-virtio {view.name} {view.driver}",
            "module-unload": f"rmmod {KINDS[self.case.device].module}",
        }[self.case.trigger]
        said = await self.running.ask(verb, self.running.limits.unplug)
        if said != "ok":
            await self.running.calm()
            raise Over("no-unplug", f"the guest could not do it: {said}")
        await self.running.until(self._gone(driver_only=True), self.running.limits.unplug)

    async def _suspend(self) -> None:
        """Suspend to idle, then wake the guest by bytes on its serial port; it must have its device as before."""
        running = self.running
        answer = running.console.answer(running.send("suspend"))
        deadline = time.monotonic() + running.limits.unplug
        while not answer.done() and time.monotonic() < deadline:
            with suppress(Late):
                await running.until(asyncio.shield(answer), WAKE_S)
            running.write(b"\n")
        if not answer.done():
            raise Late
        if answer.result() != "ok":
            await running.calm()
            raise Over("no-unplug", f"the guest could not suspend: {answer.result()}")
        await self.use()

    async def _device_del(self) -> None:
        """Ask QEMU for the device back, once more if the guest did not hear; wait until it is gone there."""
        running = self.running
        device = parts(self.case, self._generation)
        for attempt in range(2):
            try:
                await running.qmp.execute("device_del", {"id": device.identity})
            except QmpRefused as refused:
                if not attempt:
                    raise Over("no-unplug", f"QEMU refused: {refused}") from None
                self._refusal = f" (QEMU: {refused})"
            except (ConnectionError, TimeoutError):
                raise Over("no-unplug", await running.ended("its control channel broke")) from None
            with suppress(Late):
                event = await running.until(
                    self._unplugged(device.identity), running.limits.unplug / 2, watch_heart=True
                )
                if event["event"] == "DEVICE_UNPLUG_GUEST_ERROR":
                    raise Over("no-unplug", "the guest refused: QEMU sent DEVICE_UNPLUG_GUEST_ERROR")
                await self._drop_backend()
                return
        raise Late

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
        return guest.parse_view(await self.running.ask("see", self.running.limits.heartbeat))

    async def _unplugged(self, identity: str) -> dict[str, Any]:
        return await self.running.qmp.event(
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
                await self.running.qmp.execute(undo, {key: values[key]})
                return
            await asyncio.sleep(POLL_S)  # what hung on the device lets go a moment later

    async def _used_from_outside(self) -> None:
        """What only the other side of a device can tell: a balloon swells, a console's words arrive."""
        running = self.running
        try:
            if self.case.device == "balloon":
                full = MEMORY_MIB << 20
                await running.qmp.execute("balloon", {"value": full - BALLOON_BYTES})
                await running.until(self._balloon_is_not(full), running.limits.use)
                await running.qmp.execute("balloon", {"value": full})
            elif self.case.device == "console":
                ring = {"device": f"backend{self._generation}", "size": 4096}
                if not (await running.qmp.execute("ringbuf-read", ring)).strip():
                    raise Over("no-unplug", "the console could not be used: nothing arrived")
        except Late:
            raise await running.dead_or("the balloon did not move") from None
        except QmpRefused as refused:
            raise Over("no-unplug", f"QEMU could not use the device: {refused}") from None
        except (ConnectionError, TimeoutError):
            raise Over("no-unplug", await running.ended("its control channel broke")) from None

    async def _pump_balloon(self) -> None:
        full = MEMORY_MIB << 20
        with suppress(QmpRefused, ConnectionError, TimeoutError):  # the device is gone
            while True:
                for value in (full - BALLOON_BYTES, full):
                    await self.running.qmp.execute("balloon", {"value": value})
                    await asyncio.sleep(PUMP_S)

    async def _balloon_is_not(self, size: int) -> None:
        while True:
            if (await self.running.qmp.execute("query-balloon"))["actual"] != size:
                return
            await asyncio.sleep(POLL_S)
