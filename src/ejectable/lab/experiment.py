# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: boot, unplug, look, plug again. Reads like the experiment it is; every wait has a limit."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

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
from ejectable.lab.watch import CrashWatch
from ejectable.model import Event

__all__ = ["Experiment", "Limits", "Outcome"]

T = TypeVar("T")
# How long after the end of an Oops the panic that may follow it, or a sign of life, is waited for.
AFTERMATH_S = 1.0
SETTLE_S = 0.8  # a crash without an end mark is at its end when the console was silent for this long
POLL_S = 0.1


class Limits(msgspec.Struct, frozen=True):
    """How long is waited for what, in seconds. Generous: emulation on a busy machine is slow, not dead."""

    boot: float = 180.0
    silence: float = 60.0  # without a byte on the console while booting
    device: float = 30.0  # until the guest has the device working
    unplug: float = 40.0
    heartbeat: float = 15.0
    use: float = 30.0
    cycle: float = 60.0


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


class _Over(Exception):
    """The run has come to its result."""

    def __init__(self, result: Result, detail: str) -> None:
        super().__init__(detail)
        self.result = result
        self.detail = detail


class _Late(Exception):
    """A limit has passed."""


class Experiment:
    """One case on one kernel; `extra` modules are loaded behind the drivers. `tell` is called with a word for each stage, for whoever watches."""

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
        evidence: Path | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.kernel = kernel
        self.case = case
        self.limits = limits or Limits()
        self._initramfs = guest.build(kernel, case, busybox, extra)
        self._accelerator: Literal["kvm", "tcg"] = accelerator
        self._repeat = repeat
        self._evidence = evidence
        self._tell = tell
        self._number = 0
        self._generation = 0
        self._cycles = 0
        self._driven: Literal["legacy", "modern"] | None = None
        self._alive: bool | None = None
        self._triggered = False
        self._connection: socket.socket
        self._console: Console
        self._qemu: Qemu
        self._qmp: Qmp

    async def run(self) -> Outcome:
        """Do it. Raises `Missing` where QEMU cannot be started; leaves nothing behind, however it ends."""
        limit = self.limits.boot + self._repeat * self.limits.cycle * 3
        program(ARCHES[self.case.machine])
        initramfs = in_memory("initramfs", self._initramfs)
        image = in_memory("kernel", self.kernel.image)
        token = f"ejectable-{secrets.token_hex(4)}"
        transcript = (self._evidence / "console.log").open("wb") if self._evidence else None
        started = time.monotonic()
        self._qmp = Qmp(started=started)
        self._console = Console(token, started=started, transcript=transcript, watch=CrashWatch(self.case.name))

        def command(console_fd: int, qmp_fd: int) -> list[str]:
            return command_line(
                self.case,
                accelerator=self._accelerator,
                kernel=f"/proc/self/fd/{image}",
                initramfs=f"/proc/self/fd/{initramfs}",
                append=guest.command_line(self.case, token),
                console_fd=console_fd,
                qmp_fd=qmp_fd,
            )

        try:
            self._qemu = await Qemu.start(command, inherit=(image, initramfs), limit_s=limit)
            listening = asyncio.ensure_future(self._listen())
            try:
                async with asyncio.timeout(limit):
                    verdict = await self._story()
            except TimeoutError:
                verdict = _Over("hang" if self._triggered else "no-boot", f"it took longer than {limit:.0f} s in all")
            finally:
                verdict_s = time.monotonic() - started
                await self._qmp.close()
                await self._qemu.stop()
                listening.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await listening
        finally:
            os.close(image)
            os.close(initramfs)
            events = self._console.finish()
            if transcript is not None:
                with suppress(OSError):
                    transcript.close()
            self._write_qmp()
        return Outcome(
            result=verdict.result,
            detail=verdict.detail,
            accelerator=self._accelerator,
            boot_s=self._console.boot_s,
            verdict_s=verdict_s if verdict.result != "no-boot" else None,
            cycles=self._cycles,
            driven=self._driven,
            alive=self._alive,
            events=events,
            tail=tuple(self._console.tail),
            internal_error=self._qemu.internal_error,
            problems=tuple(self._console.problems),
            release=self._console.release,
        )

    # The story

    async def _story(self) -> _Over:
        try:
            await self._boot()
            for _ in range(self._repeat):
                view = await self._device_works()
                await self._unplug(view)
                await self._plug()
                self._cycles += 1
            await self._device_works()
        except _Over as verdict:
            return verdict
        again = "and a new one was plugged and used" if self._repeat == 1 else f"{self._repeat} times over"
        went = "slept and woke" if self.case.trigger == "suspend" else "went away"
        return _Over("survived", f"the device {went}, {again}")

    async def _boot(self) -> None:
        self._tell("booting")
        try:
            await self._qmp.connect(self._qemu.qmp, limit_s=self.limits.heartbeat)
        except (ConnectionError, TimeoutError):
            raise _Over("no-boot", await self._qemu_ended("it never answered")) from None
        try:
            await self._until(self._console.hello.wait(), self.limits.boot, watch_silence=True)
            await self._until(self._console.up.wait(), self.limits.device)
        except _Late:
            what = (
                "user space was not reached"
                if not self._console.hello.is_set()
                else "its modules never finished loading"
            )
            raise _Over("no-boot", what + self._last_line()) from None

    async def _device_works(self) -> View:
        """Wait until the guest has the device and can use it; as the guest sees it then."""
        self._tell("using the device")
        try:
            view = await self._until(self._bound(), self.limits.device)
        except _Late:
            if not self._triggered:
                raise _Over("no-unplug", "no driver of the guest took the device" + self._problem()) from None
            await self._dead_or("the new device was not taken by any driver")
            raise AssertionError from None
        self._driven = "modern" if view.version_1 else "legacy"
        try:
            said = await self._ask(f"use {self.case.device} {view.name}", self.limits.use)
        except _Late:
            await self._dead_or("the device could not be used: no answer")
            raise AssertionError from None
        if said != "ok":
            await self._dead_or(f"the device could not be used: {said}")
        await self._used_from_outside()
        if self.case.under_io:
            await self._ask(f"busy {self.case.device} {view.name}", self.limits.heartbeat)
            await asyncio.sleep(0.2)  # let it get going
        return view

    async def _unplug(self, view: View) -> None:
        """Pull the trigger, and see the device gone on both sides."""
        self._tell(self.case.trigger)
        self._triggered = True
        try:
            if self.case.trigger in GUEST_SIDE:
                await self._inside(view)
            if self.case.trigger == "suspend" and (await self._bound()).name != view.name:
                raise _Over("hang", "after waking the device was another one")
            await self._device_del()
            await self._until(self._gone(), self.limits.unplug)
        except _Late:
            await self._dead_or("the guest still has the device", "no-unplug")

    async def _inside(self, view: View) -> None:
        """A trigger that is pulled in the guest."""
        kind = KINDS[self.case.device]
        if self.case.trigger == "suspend":
            await self._suspend()
            return
        verb = {
            "sysfs-remove": f"remove {view.address}",
            "pci-unbind": f"unbind-pci {view.address}",
            "virtio-unbind": f"unbind-virtio {view.name} {view.driver}",
            "module-unload": f"rmmod {kind.module}",
        }[self.case.trigger]
        said = await self._ask(verb, self.limits.unplug)
        if said != "ok":
            # A caller that was killed by an Oops reports a failure too, a moment before the Oops is told to its end.
            await self._calm()
            raise _Over("no-unplug", f"the guest could not do it: {said}")
        await self._until(self._gone(driver_only=True), self.limits.unplug)

    async def _suspend(self) -> None:
        """Suspend to idle, then wake the guest by a byte on its serial port."""
        number = self._send("suspend")
        answer = self._console.answer(number)
        deadline = time.monotonic() + self.limits.unplug
        while time.monotonic() < deadline:
            with suppress(_Late):
                said = await self._until(asyncio.shield(answer), 1.0)
                if said != "ok":
                    await self._calm()
                    raise _Over("no-unplug", f"the guest could not suspend: {said}")
                return
            self._write(b"\n")
        raise _Late

    async def _device_del(self) -> None:
        """Ask QEMU for the device back, once more if the guest did not hear; wait until it is gone there."""
        device = parts(self.case, self._generation)
        for attempt in range(2):
            try:
                await self._qmp.execute("device_del", {"id": device.identity})
            except QmpRefused as refused:
                if not attempt:
                    raise _Over("no-unplug", f"QEMU refused: {refused}") from None
            except (ConnectionError, TimeoutError):
                raise _Over("no-unplug", await self._qemu_ended("its control channel broke")) from None
            try:
                event = await self._until(self._unplugged(device.identity), self.limits.unplug / 2)
            except _Late:
                continue
            if event["event"] == "DEVICE_UNPLUG_GUEST_ERROR":
                raise _Over("no-unplug", "the guest refused: QEMU sent DEVICE_UNPLUG_GUEST_ERROR")
            await self._drop_backend()
            return
        raise _Late

    async def _plug(self) -> None:
        """A new device into the same slot."""
        self._tell("plugging a new one")
        self._generation += 1
        device = parts(self.case, self._generation)
        try:
            if device.backend is not None:
                await self._qmp.execute(*device.backend)
            for properties in device.devices:
                await self._qmp.execute("device_add", properties)
        except QmpRefused as refused:
            raise _Over("no-unplug", f"QEMU would not plug a new device: {refused}") from None
        except (ConnectionError, TimeoutError):
            raise _Over("no-unplug", await self._qemu_ended("its control channel broke")) from None
        if self.case.trigger == "module-unload":
            await self._ask(f"insmod {KINDS[self.case.device].module}", self.limits.use)

    # What the story is made of

    async def _bound(self) -> View:
        while True:
            for view in await self._see():
                if view.ready and view.driver == KINDS[self.case.device].driver:
                    return view
            await asyncio.sleep(POLL_S)

    async def _gone(self, *, driver_only: bool = False) -> None:
        while any(view.driver or not driver_only for view in await self._see()):
            await asyncio.sleep(POLL_S)

    async def _see(self) -> tuple[View, ...]:
        return guest.parse_view(await self._ask("see", self.limits.heartbeat))

    async def _unplugged(self, identity: str) -> dict[str, Any]:
        return await self._qmp.event(
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
                await self._qmp.execute(undo, {key: values[key]})
                return
            await asyncio.sleep(POLL_S)  # what hung on the device lets go a moment later

    async def _used_from_outside(self) -> None:
        """A balloon is used by inflating it, a console by reading what was written to it."""
        if self.case.device == "balloon":
            with suppress(QmpRefused):
                total = (await self._qmp.execute("query-balloon"))["actual"]
                await self._qmp.execute("balloon", {"value": total - (16 << 20)})
                deadline = time.monotonic() + self.limits.use
                while (await self._qmp.execute("query-balloon"))["actual"] == total:
                    if time.monotonic() > deadline:
                        await self._dead_or("the balloon did not move")
                    await asyncio.sleep(POLL_S)
                await self._qmp.execute("balloon", {"value": total})

    async def _ask(self, command: str, limit_s: float) -> str:
        """Have the guest do something; raises `_Late` where it does not answer in time, `_Over` where it crashes."""
        number = self._send(command)
        try:
            return await self._until(self._console.answer(number), limit_s)
        finally:
            self._console.forget(number)

    def _send(self, command: str) -> int:
        self._number += 1
        self._console.answer(self._number)
        self._write(f"{self._number} {command}\n".encode())
        return self._number

    def _write(self, data: bytes) -> None:
        # Not to be blocked by a guest that never reads: what does not fit is lost, and the answer's limit passes.
        with suppress(BlockingIOError, OSError):
            self._qemu.console.send(data, socket.MSG_DONTWAIT)

    async def _until(self, work: Awaitable[T], limit_s: float, *, watch_silence: bool = False) -> T:
        """Wait for `work`, but no longer than the limit, the guest's health and QEMU's last."""
        task = asyncio.ensure_future(work)
        fell = asyncio.ensure_future(self._console.fell.wait())
        ended = asyncio.ensure_future(self._qemu.process.wait())
        deadline = time.monotonic() + limit_s
        try:
            while True:
                left = deadline - time.monotonic()
                done, _ = await asyncio.wait(
                    {task, fell, ended}, timeout=max(0.0, min(left, 1.0)), return_when=asyncio.FIRST_COMPLETED
                )
                if fell in done:
                    raise await self._crashed()
                if task in done:
                    return task.result()
                if ended in done:
                    raise _Over(self._unfinished, await self._qemu_ended("it ended"))
                if left <= 0:
                    raise _Late
                if watch_silence and time.monotonic() - self._console.last_byte > self.limits.silence:
                    raise _Over(
                        "no-boot", f"nothing came from its console for {self.limits.silence:.0f} s" + self._last_line()
                    )
        finally:
            for waiting in (task, fell, ended):
                waiting.cancel()
            await asyncio.gather(task, fell, ended, return_exceptions=True)

    @property
    def _unfinished(self) -> Result:
        return "no-unplug" if self._console.hello.is_set() else "no-boot"

    async def _crashed(self) -> _Over:
        """The kernel has begun to fall: hear it out, see what is left of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(10.0):
                while not self._console.fallen.is_set() and time.monotonic() - self._console.last_byte < SETTLE_S:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._console.fallen.wait(), 0.1)
        if not self._triggered:
            return _Over(self._unfinished, "the kernel crashed before anything was unplugged" + self._last_line())
        # An Oops is followed by a panic, where it is set so, or the guest limps on; a ping tells.
        self._alive = False
        number = self._send("ping")
        answer = self._console.answer(number)
        deadline = time.monotonic() + AFTERMATH_S * (5 if self.case.panic_on_oops else 1)
        while time.monotonic() < deadline and not self._console.panicked.is_set():
            await asyncio.wait({answer}, timeout=0.05)
            if answer.done() and not self.case.panic_on_oops:
                self._alive = True
                break
            if answer.done():
                await asyncio.sleep(0.05)
        if self._console.panicked.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._until_panic_ended(), SETTLE_S)
            return _Over("panic", "the kernel panicked")
        state = (
            "the guest still answers, with a dead thread and whatever it held" if self._alive else "the guest is dead"
        )
        return _Over("oops", f"the kernel oopsed; {state}")

    async def _until_panic_ended(self) -> None:
        while not any("end Kernel panic" in line for line in self._console.tail):
            await asyncio.sleep(0.05)

    async def _calm(self) -> None:
        """Give a crash that may be on its way a second to show."""
        with suppress(_Late):
            await self._until(asyncio.Event().wait(), AFTERMATH_S)

    async def _dead_or(self, detail: str, alive: Result = "no-unplug") -> None:
        """Something did not happen: because the guest is dead (`hang`), or though it lives (`alive`)."""
        try:
            await self._ask("ping", self.limits.heartbeat)
        except _Late:
            raise _Over(
                "hang" if self._triggered else self._unfinished, f"{detail}, and the guest no longer answers"
            ) from None
        raise _Over(alive, f"{detail}, though it still answers")

    async def _qemu_ended(self, otherwise: str) -> str:
        """Why QEMU is no more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._qemu.process.wait()), 2.0)
        await asyncio.sleep(0.05)  # its last words are on their way
        code = self._qemu.process.returncode
        words = self._qemu.last_words
        if code is None:
            return f"QEMU: {otherwise}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"QEMU {how}" + (f": {words}" if words else "")

    def _last_line(self) -> str:
        line = next((line for line in reversed(self._console.tail) if line.strip()), None)
        return f"; the last line was: {line.strip()[:200]}" if line else "; it printed nothing"

    def _problem(self) -> str:
        return f": {self._console.problems[0]}" if self._console.problems else ""

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._qemu.console.setblocking(False)
        while data := await loop.sock_recv(self._qemu.console, 1 << 16):
            self._console.feed(data)

    def _write_qmp(self) -> None:
        if self._evidence:
            with suppress(OSError):
                (self._evidence / "qmp.log").write_text("".join(f"{line}\n" for line in self._qmp.transcript))
