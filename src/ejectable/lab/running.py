# SPDX-License-Identifier: GPL-2.0-or-later
"""Talks to a running guest and waits for it, watching for crashes, hangs and QEMU's end. Every wait has a limit.

Two exceptions end a wait early: `Over`, the run has come to its result (the kernel crashed, QEMU is gone), and
`Late`, the limit has passed.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from ejectable.lab.case import Result
from ejectable.lab.console import Console
from ejectable.lab.qemu import Qemu
from ejectable.lab.qmp import Qmp
from ejectable.model import Phase

__all__ = ["MOST_PATIENCE", "Late", "Limits", "Over", "RunningGuest"]

T = TypeVar("T")
# How long after the end of an Oops a sign of life is waited for; the panic that has to follow gets longer.
AFTERMATH_S = 1.0
PANIC_FOLLOWS_S = 5.0
SETTLE_S = 0.8  # a crash without an end mark is at its end when the console was silent for this long
CRASH_S = 10.0  # at most, from its first line on
BEAT_S = 2.0  # between a guest's answer and the next ping
BRISK_S = 4.0  # a boot under emulation on an idle core takes half of that to twice
MOST_PATIENCE = 6.0
LOOK_S = 0.1
LAST_LINES = 4  # of the console, in a message
ENDING_S = 2.0  # for QEMU to be gone when its channels broke


class Limits(msgspec.Struct, frozen=True):
    """How long is waited for what, in seconds. Generous: emulation on a busy machine is slow, not dead."""

    boot: float = 180.0
    silence: float = 60.0  # without a byte on the console while booting
    device: float = 30.0  # until the guest has the device working
    unplug: float = 40.0
    heartbeat: float = 15.0
    use: float = 30.0
    cycle: float = 240.0  # a whole one, all of the above included
    patience: float = 1.0  # the factor for what has no limit of its own above

    def after(self, boot_s: float) -> "Limits":
        """The limits for a guest that took so long to boot: on a host that is busy, everything else is slow as well."""
        slow = min(max(1.0, boot_s / BRISK_S), MOST_PATIENCE)
        return msgspec.structs.replace(
            self,
            device=self.device * slow,
            unplug=self.unplug * slow,
            heartbeat=self.heartbeat * slow,
            use=self.use * slow,
            patience=slow,
        )


class Over(Exception):
    """The run has come to its result."""

    def __init__(self, result: Result, detail: str) -> None:
        super().__init__(detail)
        self.result = result
        self.detail = detail


class Late(Exception):
    """A limit has passed."""


class RunningGuest:
    """A guest, its console and its QEMU."""

    def __init__(
        self,
        qemu: Qemu,
        qmp: Qmp,
        console: Console,
        *,
        limits: Limits,
        panics: bool,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tell = tell  # a word for whoever watches
        self.qemu = qemu
        self.qmp = qmp
        self.console = console
        self.limits = limits
        self.alive: bool | None = None  # after a crash: whether the guest still answered
        self._panics = panics
        self._number = 0

    async def listen(self) -> None:
        """Read the console until it ends."""
        loop = asyncio.get_running_loop()
        self.qemu.console.setblocking(False)
        while data := await loop.sock_recv(self.qemu.console, 1 << 16):
            self.console.feed(data)
            await asyncio.sleep(0)  # a guest that never stops talking must not keep the others from being heard

    async def ask(self, command: str, limit_s: float) -> str:
        """Have the guest do something; raises `Late` where it does not answer in time, `Over` where it crashes."""
        number = self.send(command)
        try:
            return await self.until(self.console.answer(number), limit_s)
        finally:
            self.console.forget(number)

    def send(self, command: str) -> int:
        """Tell the guest to do something; returns the number that its answer will have."""
        self._number += 1
        self.console.answer(self._number)
        self.write(f"{self._number} {command}\n".encode())
        return self._number

    def write(self, data: bytes) -> None:
        """Type on the guest's console. What a guest that never reads leaves no room for is lost, and waits are not."""
        with suppress(OSError):
            self.qemu.console.send(data, socket.MSG_DONTWAIT)

    async def mark(self, phase: Phase) -> None:
        """Begin a phase: returns once its numbered mark stands in the guest's kernel log. Raises as `ask` does."""
        number = self.send(f"mark {phase}")
        try:
            await self.until(self.console.answer(number), self.limits.heartbeat)
        finally:
            self.console.forget(number)
        if not any(mark.number == number and mark.phase == phase for mark in self.console.marks):
            raise Late

    @property
    def triggered(self) -> bool:
        """Whether a device was ever about to be taken away."""
        return any(mark.phase == "trigger" for mark in self.console.marks)

    async def until(
        self, work: Awaitable[T], limit_s: float, *, watch_silence: bool = False, watch_heart: bool = False
    ) -> T:
        """Wait for `work`, but no longer than the limit, the guest's health and QEMU's last.

        Silence is watched while nothing is expected to answer, the heart where only QEMU is waited for.
        """
        task = asyncio.ensure_future(work)
        crash = asyncio.ensure_future(self.console.crash_begun.wait())
        ended = asyncio.ensure_future(self.qemu.process.wait())
        silent = asyncio.ensure_future(self._heartbeat_lost() if watch_heart else asyncio.Event().wait())
        deadline = time.monotonic() + limit_s
        try:
            while True:
                left = deadline - time.monotonic()
                done, _ = await asyncio.wait(
                    {task, crash, ended, silent}, timeout=max(0.0, min(left, 1.0)), return_when=asyncio.FIRST_COMPLETED
                )
                if crash in done:
                    raise await self._crashed()
                if task in done:
                    return task.result()
                if ended in done:
                    raise Over(self.unfinished, await self.ended("it ended"))
                if silent in done:
                    dead: Result = "hang" if self.triggered else self.unfinished
                    raise Over(dead, "the guest no longer answers: its heartbeat was lost")
                if left <= 0:
                    raise Late
                if watch_silence and time.monotonic() - self.console.last_byte > self.limits.silence:
                    quiet = f"nothing came from its console for {self.limits.silence:.0f} s"
                    raise Over("no-boot", quiet + self.last_lines())
        finally:
            for waiting in (task, crash, ended, silent):
                waiting.cancel()
            await asyncio.gather(task, crash, ended, silent, return_exceptions=True)

    async def _heartbeat_lost(self) -> None:
        """Ends when the guest does not answer a ping in time."""
        with suppress(TimeoutError):
            while True:
                await asyncio.sleep(BEAT_S)
                number = self.send("ping")
                # Not asyncio.wait_for: before Python 3.12 it forgets that it was cancelled when the answer comes in
                # the same moment, and this would go on for as long as the guest answers.
                try:
                    async with asyncio.timeout(self.limits.heartbeat):
                        await self.console.answer(number)
                finally:
                    self.console.forget(number)

    @property
    def unfinished(self) -> Result:
        """The result of a run that was cut short by something that is not the kernel's."""
        return "no-unplug" if self.console.hello.is_set() else "no-boot"

    async def calm(self) -> None:
        """Give a crash that may be on its way a second to show."""
        with suppress(Late):
            await self.until(asyncio.Event().wait(), AFTERMATH_S * self.limits.patience)

    async def dead_or(self, detail: str, alive: Result = "no-unplug") -> Over:
        """Why something did not happen: the guest is dead (`hang`), or it lives (`alive`)."""
        try:
            await self.ask("ping", self.limits.heartbeat)
        except Late:
            dead: Result = "hang" if self.triggered else self.unfinished
            return Over(dead, f"{detail}, and the guest no longer answers")
        return Over(alive, f"{detail}, though the guest still answers")

    async def ended(self, otherwise: str) -> str:
        """Why QEMU is no more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await self.qemu.process.wait()
        await asyncio.sleep(0.05)  # its last words are on their way
        code = self.qemu.process.returncode
        words = self.qemu.last_words
        if code is None:
            return f"QEMU: {otherwise}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return f"QEMU {how}" + (f": {words}" if words else "")

    def last_lines(self) -> str:
        """What the console said last, for a message."""
        lines = [line.strip()[:160] for line in self.console.tail if line.strip()][-LAST_LINES:]
        return f"; the last lines were: {' | '.join(lines)}" if lines else "; it printed nothing"

    async def _crashed(self) -> Over:
        """The result after a fatal report has begun: waits for its end, and asks whether the guest still answers.

        What it is to blame on is decided later, from all events (see `attribution`).
        """
        patience = self.limits.patience
        with suppress(TimeoutError):
            async with asyncio.timeout(CRASH_S * patience):
                settled = SETTLE_S * patience
                while not self.console.crash_ended.is_set() and time.monotonic() - self.console.last_byte < settled:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_S):
                            await self.console.crash_ended.wait()
        self.tell("a crash")
        if not self.console.hello.is_set():
            return Over("no-boot", "the kernel crashed before user space was reached" + self.last_lines())
        # An Oops is followed by a panic, where it is set so, or the guest limps on; a ping tells.
        answer = self.console.answer(self.send("ping"))
        panicked = asyncio.ensure_future(self.console.panicked.wait())
        waiting: set[asyncio.Future[Any]] = {panicked} if self._panics else {panicked, answer}
        follows = (PANIC_FOLLOWS_S if self._panics else AFTERMATH_S) * patience
        await asyncio.wait(waiting, timeout=follows, return_when=asyncio.FIRST_COMPLETED)
        panicked.cancel()
        self.alive = answer.done() and not self.console.panicked.is_set()
        if self.console.panicked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S * patience):
                    await self.console.panic_ended.wait()
            return Over("panic", "the kernel panicked")
        state = "still answers, with a dead thread and whatever it held" if self.alive else "no longer answers"
        return Over("oops", f"the kernel oopsed; the guest {state}")
