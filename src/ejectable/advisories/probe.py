# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel, asked about one defect: all the evidence, from the code that runs down to the number on the box."""

from typing import TYPE_CHECKING

import msgspec

from ejectable.advisories.code import absence, defines, locate, why_absent
from ejectable.advisories.verdict import verdict
from ejectable.advisories.versions import changelog, version
from ejectable.errors import EjectableError
from ejectable.experiment import Bench, Result
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.machine import Bounds
from ejectable.kernel.program import Program
from ejectable.model import Doubt, DoubtKind, Evidence, EvidenceKind, Finding, Status, earned

if TYPE_CHECKING:
    from ejectable.advisories.advisory import Advisory

__all__ = ["judge_program", "probe"]


def probe(advisory: "Advisory", kernel: Kernel, bounds: Bounds | None = None) -> Finding:
    """What the evidence says of this kernel. Raises `DamagedInput` where it cannot be read.

    `bounds` are those of the advisory's bench; its own where they are `None`.
    """
    if kernel.source_tree is not None:
        read = [advisory.read_source(kernel.source_tree), version(kernel.release, None, advisory.facts)]
        nothing = (
            f"{advisory.code.functions[0]}() was not found in this tree, or its source is not read for this defect"
        )
        return verdict(advisory.id, [item for item in read if item], nothing=nothing)
    program, doubts = locate(kernel, advisory.code)
    declared = [advisory.configured(kernel.config, program), version(kernel.release, kernel.banner, advisory.facts)]
    if program is None:
        absent, more = absence(kernel, advisory.code)
        doubts += more
        evidence = [item for item in (*declared, absent) if item]
        nothing = why_absent(kernel, advisory.code, doubts)
        return verdict(advisory.id, evidence, nothing=nothing).doubted(*doubts)
    evidence, result = judge_program(advisory, program, kernel, bounds)
    evidence += [item for item in declared if item]
    history = _changelog(advisory, kernel, evidence)
    if history:
        evidence.append(history)
    found = verdict(
        advisory.id,
        evidence,
        nothing=result.detail,
        explanation=advisory.explain(program, result),
        doubts=result.doubts,
    )
    return msgspec.structs.replace(found.doubted(*doubts), may=advisory.may)


def judge_program(
    advisory: "Advisory", program: Program, kernel: Kernel | None = None, bounds: Bounds | None = None
) -> tuple[list[Evidence], Result]:
    """What the code and its declarations say. `kernel`: where else to look for a function."""
    about: list[Doubt] = []

    def find(function: str) -> Program | None:
        found, doubts = _elsewhere(advisory, kernel, function)
        about.extend(doubt for doubt in doubts if doubt not in about)
        return found

    bench = Bench(program, bounds=bounds or Bounds(), find=find)
    try:
        result = advisory.experiment(bench)
        result = (
            msgspec.structs.replace(result, says=earned(result.says, about), doubts=(*result.doubts, *about))
            if about
            else result
        )
    except EjectableError as error:
        why = " ".join(filter(None, (error.message, error.hint)))
        detail = f"{advisory.code.functions[0]}() could not be run here: {why}"
        doubt = Doubt(DoubtKind.UNPARSED, advisory.code.functions[0], detail)
        result = Result(Status.UNKNOWN, detail, (detail,), (doubt,), advisory.code.functions)
    executed = Evidence(
        EvidenceKind.EXECUTED,
        result.says,
        result.detail,
        result.functions or advisory.code.functions,
        claim=result.claim,
        justification=result.justification,
    )
    return [executed, *advisory.opinions(program, result)], result


def _elsewhere(advisory: "Advisory", kernel: Kernel | None, function: str) -> tuple[Program | None, tuple[Doubt, ...]]:
    """The image, or a module that the advisory names, that has this function; and the doubts about it."""
    if kernel is None:
        return None, ()
    if kernel.vmlinux is not None and defines(kernel.vmlinux, function):
        return kernel.vmlinux, kernel.doubts
    for name in (*((advisory.code.module,) if advisory.code.module else ()), *advisory.code.also):
        found = kernel.module(name)
        if found is not None and defines(found, function):
            return found, kernel.module_doubts(name)
    return None, ()


def _changelog(advisory: "Advisory", kernel: Kernel, evidence: list[Evidence]) -> Evidence | None:
    """The package's changelog: always where it is at hand, and where it costs much only if the code left doubts."""
    if kernel.package is None:
        return None
    decided = any(item.kind is EvidenceKind.EXECUTED and item.says is not Status.UNKNOWN for item in evidence)
    if decided and not kernel.path.endswith(".rpm"):
        return None
    try:
        return changelog(kernel.package.changelog, advisory.facts)
    except EjectableError:
        return None  # a changelog that cannot be read takes nothing away from what the code says
