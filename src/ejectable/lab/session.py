# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out the cases, some at once, with second attempts and control runs; keeps the transcripts of each."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from ejectable.errors import EjectableError
from ejectable.lab.accelerator import Accelerator
from ejectable.lab.case import Case
from ejectable.lab.evidence import Evidence
from ejectable.lab.experiment import Experiment, Limits, Story
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.modules import Module
from ejectable.lab.outcome import Outcome
from ejectable.lab.rig import Rig
from ejectable.model import Run, RunResult

__all__ = ["Done", "Session"]

# How long a control run is watched: as long as the guest that died had lived, within these.
SHORTEST_CONTROL_S = 5.0
LONGEST_CONTROL_S = 60.0


class Done(msgspec.Struct, frozen=True):
    """A run that is over: what is told about it, and all that is known."""

    run: Run
    outcome: Outcome
    notes: tuple[str, ...] = ()  # what went wrong beside it


class Session(msgspec.Struct):
    """What all runs have in common. `stage` is told what each case is doing, `finished` what came of it."""

    kernel: GuestKernel
    busybox: bytes
    accelerator: Accelerator
    extra: tuple[Module, ...] = ()
    repeat: int = 1
    jobs: int = 1
    limits: Limits = Limits()
    evidence: Evidence | None = None
    advisories: tuple[str, ...] = ()  # their ids: looked for beside those that are by default
    stage: Callable[[Case, str], None] = lambda _case, _stage: None
    finished: Callable[[Case, Done], None] = lambda _case, _done: None

    async def run(self, cases: Sequence[Case]) -> list[Done]:
        """The answers of all cases, in their order.

        Ctrl-C, SIGTERM and SIGHUP end every guest first; the latter two then leave with 128 and their number, as a
        shell has it. Raises `Missing` where QEMU cannot be started at all.
        """
        gate = asyncio.Semaphore(max(1, self.jobs))
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        came: list[int] = []

        def end(number: int) -> None:
            came.append(number)
            if me is not None:
                me.cancel()

        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread: no signals come here
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, end, number)

        async def one(number: int, case: Case) -> Done:
            async with gate:
                done = await self._one(number, case)
                self.finished(case, done)
                return done

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number, case)) for number, case in enumerate(cases, 1)]
        except asyncio.CancelledError:
            if came:
                raise SystemExit(128 + came[0]) from None
            raise
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # what is missing for one is missing for all
        return [task.result() for task in tasks]

    async def _one(self, number: int, case: Case) -> Done:
        """One case: tried again where the first attempt says nothing, with a control where a death is unexplained."""
        tried = await self._attempt(case, self.accelerator.name)
        notes: list[str] = []
        if tried.outcome.accelerator == "kvm" and self.accelerator.why != "as asked for" and _kvm_failed(tried.outcome):
            notes.append("KVM failed inside the guest (KVM internal error): the run was repeated under emulation")
            tried = await self._attempt(case, "tcg")
        transcripts: dict[str, bytes] = {}
        attempts = 1
        if tried.outcome.inconclusive:
            earlier, attempts = tried.outcome, 2
            transcripts |= tried.transcripts("first-attempt-")
            tried = await self._attempt(case, earlier.accelerator, wordy=earlier.result == "no-boot")
            why = earlier.crash.title if earlier.crash else earlier.detail
            notes.append(f"{case.name} was tried twice; the first attempt ended in {earlier.result}: {why}")
        control: RunResult | None = None
        if tried.outcome.result in ("crashed-otherwise", "hang") and tried.outcome.triggered:
            beside = await self._attempt(case, tried.outcome.accelerator, story=_control(tried.outcome))
            control = beside.outcome.result
            transcripts |= beside.transcripts("control-")
        paths: Mapping[str, str] = {}
        if self.evidence is not None:
            name = f"{number:03}-{case.name}"
            try:
                paths = self.evidence.keep(name, transcripts | tried.transcripts())
            except (OSError, EjectableError) as error:  # it costs the evidence, not the result
                reason = error.strerror if isinstance(error, OSError) else error
                notes.append(f"the evidence could not be written to {self.evidence.folder / name}: {reason}")
        run = _as_run(self.kernel, case, tried.outcome, paths)
        if control is not None:
            detail = f"{run.detail}; a control run without the unplug ended in {control}"
            run = msgspec.structs.replace(run, control=control, detail=detail)
        return Done(msgspec.structs.replace(run, attempts=attempts), tried.outcome, tuple(notes))

    async def _attempt(
        self, case: Case, accelerator: Literal["kvm", "tcg"], *, wordy: bool = False, story: Story | None = None
    ) -> "Attempt":
        experiment = Experiment(
            self.kernel,
            case,
            busybox=self.busybox,
            extra=self.extra,
            accelerator=accelerator,
            repeat=self.repeat,
            wordy=wordy,
            story=story,
            limits=self.limits,
            advisories=self.advisories,
            tell=lambda stage: self.stage(case, stage),
        )
        outcome = await experiment.run()
        return Attempt(outcome, experiment.console_transcript, experiment.qmp_transcript)


class Attempt(msgspec.Struct, frozen=True):
    """One guest that was run."""

    outcome: Outcome
    console: bytes
    qmp: str

    def transcripts(self, prefix: str = "") -> dict[str, bytes]:
        """Its transcripts by the names of their files."""
        return {f"{prefix}console.log": self.console, f"{prefix}qmp.log": self.qmp.encode()}


def _control(outcome: Outcome) -> Story:
    """The same guest, with the device used for as long as the other one lived, and nothing taken away."""
    lived = (outcome.verdict_s or 0.0) - (outcome.boot_s or 0.0)
    seconds = min(max(lived, SHORTEST_CONTROL_S), LONGEST_CONTROL_S)

    async def story(rig: Rig) -> None:
        await rig.use()
        await rig.idle(seconds)

    return story


def _kvm_failed(outcome: Outcome) -> bool:
    return outcome.internal_error or outcome.result == "no-boot"


def _as_run(kernel: GuestKernel, case: Case, outcome: Outcome, paths: Mapping[str, str]) -> Run:
    return Run(
        kernel=kernel.path,
        arch=kernel.arch,
        accelerator=outcome.accelerator,
        machine=case.machine,
        device=case.device,
        mode=case.mode,
        trigger=case.trigger,
        result=outcome.result,
        advisory=outcome.advisory,
        boot_s=_rounded(outcome.boot_s),
        verdict_s=_rounded(outcome.verdict_s),
        console=paths.get("console.log"),
        panic_on_oops=1 if case.panic_on_oops else 0,
        under_io=case.under_io,
        driven=outcome.driven,
        cycles=outcome.cycles,
        alive=outcome.alive,
        release=outcome.release,
        crash=outcome.crash.title if outcome.crash else None,
        detail=outcome.detail,
        qmp=paths.get("qmp.log"),
        events=outcome.attributed,
        properties=dict(case.properties),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
