# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs, some at once: what the guests did becomes `Run`s, with the evidence beside them."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ejectable.advisories import registry
from ejectable.intake import Directory
from ejectable.lab.accelerator import Accelerator
from ejectable.lab.case import Case
from ejectable.lab.experiment import Experiment, Limits, Outcome
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.modules import Module
from ejectable.model import Event, Run

__all__ = ["Done", "Session", "name_crash"]

# Kinds of events that end nothing: they are told, and change no result.
HARMLESS = frozenset({"warning", "rcu-stall", "soft-lockup", "hung-task", "lockdep", "ubsan", "other"})


class Done(msgspec.Struct, frozen=True):
    """A run that is over: what is told about it, and all that is known."""

    run: Run
    outcome: Outcome
    note: str | None = None  # what went wrong beside it


class Session(msgspec.Struct):
    """What all runs have in common. `stage` is told what each case is doing, `finished` what came of it."""

    kernel: GuestKernel
    busybox: bytes
    accelerator: Accelerator
    extra: tuple[Module, ...] = ()
    repeat: int = 1
    jobs: int = 1
    limits: Limits = Limits()
    evidence: Path | None = None
    stage: Callable[[Case, str], None] = lambda _case, _stage: None
    finished: Callable[[Case, Done], None] = lambda _case, _done: None

    async def run(self, cases: Sequence[Case]) -> list[Done]:
        """Run them all; the answers come in the order of `cases`. SIGTERM and Ctrl-C end every guest first.

        Raises `Missing` where QEMU cannot be started at all.
        """
        gate = asyncio.Semaphore(max(1, self.jobs))
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread: no signals come here
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, lambda: me.cancel() if me else None)

        async def one(number: int, case: Case) -> Done:
            async with gate:
                done = await self._one(number, case)
                self.finished(case, done)
                return done

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number, case)) for number, case in enumerate(cases, 1)]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # what is missing for one is missing for all
        return [task.result() for task in tasks]

    async def _one(self, number: int, case: Case) -> Done:
        outcome, console, qmp = await self._experiment(case, self.accelerator.name)
        note = None
        if outcome.accelerator == "kvm" and self.accelerator.why != "as asked for" and _kvm_failed(outcome):
            note = "KVM failed inside the guest (KVM internal error): the run was repeated under emulation"
            outcome, console, qmp = await self._experiment(case, "tcg")
        paths: tuple[str | None, str | None] = (None, None)
        if self.evidence is not None:
            paths, problem = _keep(self.evidence / f"{number:03}-{case.name}", console, qmp)
            note = note or problem
        return Done(_as_run(self.kernel, case, outcome, *paths), outcome, note)

    async def _experiment(self, case: Case, accelerator: Any) -> tuple[Outcome, bytes, str]:
        experiment = Experiment(
            self.kernel,
            case,
            busybox=self.busybox,
            extra=self.extra,
            accelerator=accelerator,
            repeat=self.repeat,
            limits=self.limits,
            tell=lambda stage: self.stage(case, stage),
        )
        outcome = await experiment.run()
        return outcome, experiment.console_transcript, experiment.qmp_transcript


def name_crash(events: Sequence[Event]) -> tuple[Event | None, str | None]:
    """The event that ended a run, and the advisory that it matches."""
    serious = [event for event in events if event.kind not in HARMLESS]
    for event in serious:
        for advisory in registry().values():
            named: str | None = advisory.part("signature").recognise(event).advisory
            if named is not None:
                return event, named
    return (serious[0] if serious else None), None


def _kvm_failed(outcome: Outcome) -> bool:
    return outcome.internal_error or outcome.result == "no-boot"


def _as_run(kernel: GuestKernel, case: Case, outcome: Outcome, console: str | None, qmp: str | None) -> Run:
    event, advisory = name_crash(outcome.events) if outcome.result in ("oops", "panic") else (None, None)
    return Run(
        kernel=kernel.path,
        arch=kernel.arch,
        accelerator=outcome.accelerator,
        machine=case.machine,
        device=case.device,
        mode=case.mode,
        trigger=case.trigger,
        result=outcome.result,
        advisory=advisory,
        boot_s=_rounded(outcome.boot_s),
        verdict_s=_rounded(outcome.verdict_s),
        console=console,
        panic_on_oops=1 if case.panic_on_oops else 0,
        under_io=case.under_io,
        driven=outcome.driven,
        cycles=outcome.cycles,
        alive=outcome.alive,
        release=outcome.release,
        crash=event.title if event else None,
        detail=outcome.detail,
        qmp=qmp,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _keep(folder: Path, console: bytes, qmp: str) -> tuple[tuple[str | None, str | None], str | None]:
    """Write the transcripts down; a disk that is full costs the evidence, not the result."""
    try:
        with Directory.make(folder.parent) as evidence:
            try:
                with evidence.enter(folder.name, make=True) as case:
                    case.write("console.log", console)
                    case.write("qmp.log", qmp.encode())
            except OSError:
                with suppress(OSError):
                    evidence.remove_folder(folder.name, filled=True)
                raise
    except OSError as error:
        return (None, None), f"the evidence could not be written to {folder}: {error.strerror or error}"
    return (str(folder / "console.log"), str(folder / "qmp.log")), None
