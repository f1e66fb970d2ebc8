# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries out one call of `ejectable lab`: from its options to a proof."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from ejectable.advisories import Scenario, registry
from ejectable.assess.proof import Prediction, Proof, claims_of, predict
from ejectable.errors import WrongUsage
from ejectable.intake import Limits as IntakeLimits
from ejectable.lab.accelerator import choose
from ejectable.lab.busybox import busybox
from ejectable.lab.case import AXES, Case
from ejectable.lab.evidence import Evidence
from ejectable.lab.kernels import GuestKernel, open_kernel
from ejectable.lab.machines import ARCHES
from ejectable.lab.matrix import Plan, plan, values
from ejectable.lab.modules import Module, read_module
from ejectable.lab.qemu import program
from ejectable.lab.running import Limits
from ejectable.lab.session import Done, Session
from ejectable.model import Arch, Claim

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
    named: bool = False  # somebody asked for these by name
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
    """The proof, after all runs that were asked for. `planned` is called before anything starts, the others as it goes.

    Raises the errors of `ejectable.errors` where it cannot begin; a run that fails is a result.
    """
    asked = {axis: None if text is None else values(axis, text) for axis, text in request.axes.items()}
    if request.accel not in ACCELERATORS:
        raise WrongUsage(f"--accel knows no {request.accel!r}.", hint=f"It is one of {', '.join(ACCELERATORS)}.")
    kernel = open_kernel(request.kernel, modules=request.modules, limits=request.limits)
    axes = {
        axis: asked.get(axis) or _default(kernel, axis, request)
        for axis in ("machine", "device", "mode", "trigger", "panic-on-oops", "io")
    }
    made = _prepared(plan(kernel, axes), request)
    planned(made)
    if not made.cases:
        return _not_tried(made)
    program(kernel.arch)
    extra = tuple(read_module(path) for path in request.insmod)
    user_space = busybox(kernel.arch, request.busybox)
    work = _perform(
        request, kernel=kernel, made=made, extra=extra, user_space=user_space, stage=stage, finished=finished
    )
    return asyncio.run(work)


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
    evidence = Evidence.temporary() if request.evidence is None else Evidence.named(request.evidence)
    session = Session(
        kernel=kernel,
        busybox=user_space,
        accelerator=accelerator,
        extra=extra,
        repeat=request.repeat,
        jobs=request.jobs,
        limits=Limits(boot=request.boot_s),
        evidence=evidence,
        advisories=request.advisories,
        stage=stage,
        finished=finished,
    )
    try:
        done = await session.run(made.cases)
    except BaseException:
        evidence.discard()  # interrupted: what was made unasked is taken back
        raise
    runs = tuple(one.run for one in done)
    notes = tuple(dict.fromkeys(note for one in done for note in one.notes))
    claims = claims_of(runs, request.advisories)
    prediction = _prediction(request, kernel, claims) if request.verdict else None
    kept = str(evidence.folder) if any(run.console for run in runs) else None
    return msgspec.structs.replace(
        _not_tried(made),
        runs=runs,
        accelerator=accelerator.name,
        accelerator_why=accelerator.why,
        evidence=kept,
        notes=notes,
        prediction=prediction,
        claims=claims,
        named=request.named,
    )


def _not_tried(made: Plan) -> Proof:
    """The proof before anything was run."""
    return Proof(
        runs=(),
        skipped=tuple((skipped.case.name, skipped.reason) for skipped in made.skipped),
        reasons=tuple(made.reasons),
        accelerator="none",
        accelerator_why="nothing was run",
        evidence=None,
    )


def _scenario(request: Request) -> Scenario | None:
    """What a guest must be like for the first of the advisories that says so."""
    known = registry()
    return next((found for name in request.advisories if (found := known[name].scenario) is not None), None)


def _default(kernel: GuestKernel, axis: str, request: Request) -> tuple[str, ...]:
    """What is tried where nobody asks for anything else: as the advisory needs it, where one was named."""
    first = {"device": "disk", "mode": AXES["mode"][0], "panic-on-oops": "0", "io": "idle", **DEFAULTS[kernel.arch]}
    scenario = _scenario(request) if request.named else None
    if scenario is not None:
        wanted = {"device": scenario.devices, "mode": scenario.modes or ("modern",), "trigger": scenario.triggers}
        first |= {name: words[0] for name, words in wanted.items() if words and words[0] in AXES[name]}
    return (first[axis],)


def _prepared(made: Plan, request: Request) -> Plan:
    """The plan, each device with the properties that the advisory needs, where one was named."""
    scenario = _scenario(request) if request.named else None
    if scenario is None or not scenario.properties:
        return made
    given = tuple(scenario.properties.items())
    cases = (
        msgspec.structs.replace(case, properties=given) if case.device in (scenario.devices or (case.device,)) else case
        for case in made.cases
    )
    return msgspec.structs.replace(made, cases=tuple(cases))


def _prediction(request: Request, kernel: GuestKernel, claims: tuple[Claim, ...]) -> Prediction:
    """Judge the code that ran: virtio_pci out of --modules where that has one, else the kernel as it was given."""
    from ejectable.assess.kernels import judge_path

    path = kernel.replaced_virtio_pci or request.kernel
    judged = judge_path(path, request.advisories, request.limits)
    return predict(claims, judged.kernels)
