# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of the laboratory, and the way from there to a proof."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ejectable.assess.proof import Prediction, Proof, claims_of, predict
from ejectable.errors import Missing, WrongUsage
from ejectable.intake import Limits as IntakeLimits
from ejectable.lab.accelerator import choose
from ejectable.lab.busybox import busybox
from ejectable.lab.case import Case
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.machines import ARCHES
from ejectable.lab.matrix import Plan, plan, values
from ejectable.lab.modules import Module, read_module
from ejectable.lab.qemu import program
from ejectable.lab.running import Limits
from ejectable.lab.session import Done, Session
from ejectable.model import Arch, Claim, Run

__all__ = ["DEFAULTS", "Request", "perform"]

# Architecture → what an axis is when nothing is asked for.
DEFAULTS: dict[Arch, dict[str, str]] = {
    "x86_64": {"machine": "pc", "trigger": "acpi-eject"},
    "aarch64": {"machine": "virt", "trigger": "pcie-hotplug"},
}
ACCELERATORS = ("auto", "kvm", "tcg")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one call; paths and words as they were typed. `None` in `axes` takes the default."""

    kernel: str
    modules: str | None = None
    axes: Mapping[str, str | None] = msgspec.field(default_factory=dict)
    accel: str = "auto"
    repeat: int = 1
    insmod: tuple[str, ...] = ()
    busybox: str | None = None
    evidence: str | None = None
    boot_s: float = 180.0
    verdict: bool = False
    advisories: tuple[str, ...] = ()  # their ids
    jobs: int = 1
    limits: IntakeLimits = IntakeLimits()
    cache: bool = True


def perform(
    request: Request,
    *,
    planned: Callable[[Plan], None] = lambda _: None,
    stage: Callable[[Case, str], None] = lambda _case, _stage: None,
    finished: Callable[[Case, Done], None] = lambda _case, _done: None,
) -> Proof:
    """Do what is asked. `planned` is called before anything starts, the others as it goes.

    Raises the errors of `ejectable.errors` where it cannot begin; a run that fails is a result.
    """
    asked = {axis: None if text is None else values(axis, text) for axis, text in request.axes.items()}
    if request.accel not in ACCELERATORS:
        raise WrongUsage(f"--accel knows no {request.accel!r}.", hint=f"It is one of {', '.join(ACCELERATORS)}.")
    kernel = open_kernel(request.kernel, modules=request.modules, limits=request.limits)
    axes = {
        axis: asked.get(axis) or _default(kernel, axis)
        for axis in ("machine", "device", "mode", "trigger", "panic-on-oops", "io")
    }
    made = plan(kernel, axes)
    planned(made)
    if not made.cases:
        return _proof(made)
    program(kernel.arch)
    extra = tuple(read_module(path) for path in request.insmod)
    user_space = busybox(kernel.arch, request.busybox)
    work = _perform(
        request, kernel=kernel, made=made, extra=extra, user_space=user_space, stage=stage, finished=finished
    )
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:  # by SIGTERM or SIGHUP: to the caller the same as Ctrl-C
        raise KeyboardInterrupt from None


async def _perform(
    request: Request,
    *,
    kernel: GuestKernel,
    made: Plan,
    extra: tuple[Module, ...],
    user_space: bytes,
    stage: Callable[[Case, str], None],
    finished: Callable[[Case, Done], None],
) -> Proof:
    machine = next(case.machine for case in made.cases if ARCHES[case.machine] == kernel.arch)
    accelerator = await choose(request.accel, kernel, machine, cache=request.cache)
    folder, ours = _evidence(request.evidence)
    session = Session(
        kernel=kernel,
        busybox=user_space,
        accelerator=accelerator,
        extra=extra,
        repeat=request.repeat,
        jobs=request.jobs,
        limits=Limits(boot=request.boot_s),
        evidence=folder,
        stage=stage,
        finished=finished,
    )
    try:
        done = await session.run(made.cases)
    except BaseException:
        # Interrupted: what we made unasked is taken back. What was asked for by name stays.
        if ours:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    runs = tuple(one.run for one in done)
    notes = tuple(dict.fromkeys(one.note for one in done if one.note))
    claims = claims_of(runs, request.advisories)
    prediction = _prediction(request, kernel, claims) if request.verdict else None
    kept = str(folder) if any(run.console for run in runs) else None
    return _proof(
        made,
        runs,
        accelerator=accelerator.name,
        why=accelerator.why,
        evidence=kept,
        notes=notes,
        prediction=prediction,
        claims=claims,
    )


def _proof(
    made: Plan,
    runs: tuple[Run, ...] = (),
    *,
    accelerator: str = "none",
    why: str = "nothing was run",
    evidence: str | None = None,
    notes: tuple[str, ...] = (),
    prediction: Prediction | None = None,
    claims: tuple[Claim, ...] = (),
) -> Proof:
    return Proof(
        runs=runs,
        skipped=tuple((skipped.case.name, skipped.reason) for skipped in made.skipped),
        reasons=tuple(made.reasons),
        accelerator=accelerator,
        accelerator_why=why,
        evidence=evidence,
        notes=notes,
        prediction=prediction,
        claims=claims,
    )


def _default(kernel: GuestKernel, axis: str) -> tuple[str, ...]:
    first = {"device": "disk", "mode": "legacy", "panic-on-oops": "0", "io": "idle"}
    return (DEFAULTS[kernel.arch].get(axis) or first[axis],)


def _evidence(wanted: str | None) -> tuple[Path, bool]:
    """The folder for transcripts, and whether it is one of ours: that is made only when there is something to keep."""
    if wanted is None:
        return Path(tempfile.gettempdir()) / f"ejectable-lab-{secrets.token_hex(6)}", True
    try:
        Path(wanted).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Missing(f"{wanted}: no folder can be made there: {error.strerror}.", hint="Choose another.") from error
    return Path(wanted).absolute(), False


def _prediction(request: Request, kernel: GuestKernel, claims: tuple[Claim, ...]) -> Prediction:
    """Judge the code that ran: virtio_pci out of --modules where that has one, else the kernel as it was given."""
    from ejectable.assess.kernels import judge_path

    path = kernel.replaced_virtio_pci or request.kernel
    judged = judge_path(path, request.advisories, request.limits)
    return predict(claims, judged.kernels)
