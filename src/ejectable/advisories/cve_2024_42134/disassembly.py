# SPDX-License-Identifier: GPL-2.0-or-later
"""The disassembly: the call through the callback, and whether the pointer is tested in front of it.

Weaker than running it: a condition elsewhere may guard the call just as well. So an unguarded call is counted against
a kernel only as long as the run did not find such a condition.
"""

from collections.abc import Iterator

from ejectable.advisories.cve_2024_42134.experiment import FUNCTION, Result
from ejectable.experiment import Result as BenchResult
from ejectable.kernel import Program
from ejectable.kernel.code import IndirectCall, Instruction, indirect_calls, listing
from ejectable.kernel.program import Symbol
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["annotated", "disassembly"]

AROUND = (9, 4)  # instructions shown in front of the call and behind it


def _functions(program: Program) -> Iterator[Symbol]:
    """vp_del_vqs() and the small functions that a compiler may have made of it."""
    whole = program.symbols.function(FUNCTION)
    if whole is None:
        return
    yield whole
    for instruction in listing(program, whole):
        found = program.symbols.at(instruction.target) if instruction.target is not None else None
        if found is None or found[1] or found[0].kind == "U" or found[0] == whole:
            continue
        if found[0].name.startswith("vp_"):
            yield found[0]


def _call(program: Program, result: Result) -> tuple[Symbol, IndirectCall] | None:
    """The call that was seen to be made; else the first through this place of the device."""
    through = [
        (function, call)
        for function in {function.address: function for function in _functions(program)}.values()
        for call in indirect_calls(program, function)
        if call.loaded_from == result.slot
    ]
    made = [found for found in through if found[1].site == result.site]
    return next(iter(made or through), None)


def disassembly(program: Program, result: BenchResult) -> Evidence | None:
    """What the code looks like; `None` where the callback's place is not known."""
    if not isinstance(result, Result) or result.slot is None:
        return None
    found = _call(program, result)
    if found is None:
        return Evidence(
            EvidenceKind.DISASSEMBLY, Status.UNKNOWN, f"no call through the device's {result.slot:#x} was recognised"
        )
    function, call = found
    place = program.symbols.describe(call.site)
    what = f"at {place} the pointer at {result.slot:#x} of the device is called"
    if call.tested is None:
        says, tail = Status.UNKNOWN, "; it is tested, but not on every way there"
    elif call.tested:
        says, tail = Status.FIXED, ", after it was tested"
    else:
        says = Status.AFFECTED if result.null_called or result.says is Status.AFFECTED else Status.UNKNOWN
        aside = "; another condition keeps a legacy device from it" if result.says is Status.FIXED else ""
        tail = f", and nothing tests it in front{aside}"
    return Evidence(EvidenceKind.DISASSEMBLY, says, what + tail, functions=(function.name,))


def annotated(program: Program, result: BenchResult) -> list[str]:
    """The instructions around the call, for a person with objdump beside it."""
    lines = [*result.story]
    if not isinstance(result, Result) or result.slot is None:
        return lines
    found = _call(program, result)
    if found is None:
        return lines
    function, call = found
    code = list(listing(program, function))
    index = next(i for i, instruction in enumerate(code) if instruction.address == call.site)
    lines.append("")
    around = code[max(0, index - AROUND[0]) : index + AROUND[1] + 1]
    lines += [f"{_mark(instruction, call)} {instruction.text(program)}" for instruction in around]
    tool = "objdump" if program.arch == "x86_64" else "aarch64-linux-gnu-objdump"
    file = "vmlinux" if program.name == "vmlinux" else f"{program.name}.ko"
    lines.append(f"Compare: {tool} -dr --disassemble={function.name} {file}")
    return lines


def _mark(instruction: Instruction, call: IndirectCall) -> str:
    return "=>" if instruction.address == call.site else "  "
