# SPDX-License-Identifier: GPL-2.0-or-later
"""Code, read: a function as instructions with names, and its indirect calls with what is known of their targets."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from ejectable.kernel.machine.cpu import thunk_registers
from ejectable.kernel.program import SUFFIX, NotMapped, Program, Symbol

__all__ = ["IndirectCall", "Instruction", "function_parts", "indirect_calls", "listing", "unread"]

# A function longer than this is none, but a symbol table without an end.
MOST_CODE = 1 << 16
WINDOW = 16  # instructions in front of a call that may load its target or test it
LOAD_X86 = re.compile(r"(r\w{1,3}), qword ptr \[(r\w{1,3})(?: \+ (0x[0-9a-f]{1,16}|\d{1,20}))?\]")
MEMORY_X86 = re.compile(r"qword ptr \[(r\w+)(?: \+ (0x[0-9a-f]+|\d+))?\]")
LOAD_ARM = re.compile(r"(x\d+), \[(x\d+)(?:, #(-?0x[0-9a-f]+|-?\d+))?\]")


class Instruction(msgspec.Struct, frozen=True):
    """One instruction; `target` is the symbol that a direct branch goes to."""

    address: int
    size: int
    mnemonic: str
    operands: str
    target: int | None

    def text(self, program: Program) -> str:
        """As objdump would write it, more or less, with the names of targets."""
        place = program.symbols.describe(self.address)
        goal = f" <{program.symbols.describe(self.target)}>" if self.target is not None else ""
        return f"{self.address:x} <{place}>: {self.mnemonic} {self.operands}{goal}".rstrip()


class IndirectCall(msgspec.Struct, frozen=True):
    """A call or tail jump through a register or a pointer in memory."""

    site: int
    register: str | None
    base: str | None  # the register that the pointer was read relative to
    loaded_from: int | None  # the offset from that register
    tested: bool | None  # compared with zero on the only way to the call; `None`: compared, but there are other ways
    tail: bool


def function_parts(program: Program, function: str | Symbol) -> tuple[Symbol, ...]:
    """The function and the parts that the compiler split off it, by address.

    A name stands for the first function that has it; static functions of several files may share one.
    """
    symbols = program.symbols
    whole = function if isinstance(function, Symbol) else symbols.function(function) or symbols.get(function)
    if whole is None:
        return ()
    parts = [s for s in symbols.variants(SUFFIX.sub("", whole.name)) if ".cold" in s.name or ".part." in s.name]
    return tuple(sorted({whole.address: whole, **{s.address: s for s in parts}}.values(), key=lambda s: s.address))


def listing(program: Program, function: str | Symbol) -> Iterator[Instruction]:
    """The instructions of a function, its parts one after the other."""
    import capstone

    if program.arch == "x86_64":
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    else:
        engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    engine.skipdata = True  # data between the code does not end the function
    for part in function_parts(program, function):
        try:
            code = program.image.read(part.address, min(part.size or 4096, MOST_CODE))
        except NotMapped:
            continue
        for address, size, mnemonic, operands in engine.disasm_lite(code, part.address):
            yield Instruction(address, size, mnemonic, operands, _target(mnemonic, operands))


def unread(program: Program, function: str | Symbol) -> list[Symbol]:
    """The parts of a function that `listing` does not show whole: not in the image, or longer than any function is."""
    found = []
    for part in function_parts(program, function):
        try:
            program.image.read(part.address, min(part.size or 4096, MOST_CODE))
        except NotMapped:
            found.append(part)
        else:
            found += [part] if part.size > MOST_CODE else []
    return found


CONDITIONAL = re.compile(r"j(?!mp)\w+|b\.\w+|cbn?z|tbn?z")
TAKEN_FOR_ZERO = frozenset(("je", "jz", "cbz", "b.eq"))
TAKEN_FOR_OTHERS = frozenset(("jne", "jnz", "cbnz", "b.ne"))
AWAY = re.compile(r"jmp|retq?|b|br|ud2|int3|brk|\.byte")
# Registers that a callee keeps: the System V psABI and AAPCS64.
KEPT = re.compile(r"rbx|rbp|r1[2-5]|x19|x2[0-9]")
BRANCH = re.compile(r"(?:call|j\w+|bl?|b\.\w+|cbn?z|tbn?z)")
ADDRESS = re.compile(r"#?(0x[0-9a-f]+)$")


def _target(mnemonic: str, operands: str) -> int | None:
    found = ADDRESS.search(operands) if BRANCH.fullmatch(mnemonic) and "[" not in operands else None
    return int(found[1], 16) if found else None


def indirect_calls(program: Program, function: str | Symbol) -> list[IndirectCall]:
    """Every indirect call of a function, in order of address."""
    code = list(listing(program, function))
    thunks = thunk_registers(program.symbols) if program.arch == "x86_64" else {}
    found = []
    for index, instruction in enumerate(code):
        through = _through(thunks, instruction)
        if through is None:
            continue
        way = _way_to(code, index)
        register, base, offset = through
        test: int | None = None  # its position on the way
        if base is None and register is not None:
            base, offset, test = _trace(way, register)
        if base is not None and test is None:
            test = next((at for at in range(len(way) - 1, -1, -1) if _compares(way[at].does, base, offset)), None)
        tested = _guards(code, way, test, instruction) if test is not None else False
        tail = instruction.mnemonic in ("jmp", "br")
        found.append(IndirectCall(instruction.address, register, base, offset, tested, tail))
    return found


class _Step(msgspec.Struct, frozen=True):
    """An instruction on the way to a call; `jumps`: it is a branch, and it is taken."""

    does: Instruction
    jumps: bool = False


def _way_to(code: list[Instruction], index: int) -> list[_Step]:
    """The instructions that lead to the one at `index`: in front of it, and where nothing falls through to there, in
    front of the one branch that goes there. It begins where there is more than one.
    """
    way: list[_Step] = []
    seen = {index}
    while len(way) < WINDOW:
        previous = index - 1
        if previous < 0 or not AWAY.fullmatch(code[previous].mnemonic):
            step = _Step(code[previous]) if previous >= 0 else None
        else:
            came_from = [
                at for at, branch in enumerate(code) if branch.target == code[index].address and _jumps(branch)
            ]
            previous = came_from[0] if len(came_from) == 1 else -1
            step = _Step(code[previous], jumps=True) if previous >= 0 else None
        if step is None or previous in seen:
            break
        way.insert(0, step)
        seen.add(previous)
        index = previous
    return way


def _jumps(instruction: Instruction) -> bool:
    """A branch that is no call."""
    return instruction.target is not None and instruction.mnemonic not in ("call", "bl")


def _guards(code: list[Instruction], way: list[_Step], test: int, call: Instruction) -> bool | None:
    """Whether the comparison at `test` on the way keeps zero from the call; `None` if there are other ways to it."""
    behind = {step.does.address for step in way[test + 1 :]} | {call.address}
    taken = {step.does.address for step in way if step.jumps}
    if any(branch.target in behind and branch.address not in taken for branch in code if _jumps(branch)):
        return None
    for step in way[test:]:
        if CONDITIONAL.fullmatch(step.does.mnemonic):
            return step.does.mnemonic in (TAKEN_FOR_OTHERS if step.jumps else TAKEN_FOR_ZERO)
    return False


def _through(thunks: Mapping[int, str], instruction: Instruction) -> tuple[str | None, str | None, int | None] | None:
    """(register, base, offset) of an indirect branch; `None` for anything else."""
    if instruction.mnemonic in ("blr", "br", "blraaz", "blraa"):
        return instruction.operands.split(",")[0], None, None
    if instruction.mnemonic not in ("call", "jmp"):
        return None
    if instruction.target is not None:
        register = thunks.get(instruction.target)
        return (register, None, None) if register else None
    memory = MEMORY_X86.search(instruction.operands)
    if memory:
        return None, memory[1], int(memory[2] or "0", 0)
    # A jump through a table of the function's own is no call.
    return (instruction.operands, None, None) if re.fullmatch(r"r\w+", instruction.operands) else None


def _trace(way: list[_Step], register: str) -> tuple[str | None, int | None, int | None]:
    """Base and offset that the register was loaded from, and where on the way it was compared with zero since."""
    tested = None
    same = {register, _narrow(register)}
    for at in range(len(way) - 1, -1, -1):
        does = way[at].does
        operands = [part.strip() for part in does.operands.split(",")]
        if does.mnemonic in ("test", "cbz", "cbnz", "cmp", "tst"):
            if operands[0] in same:
                tested = tested or at
            continue
        load = (LOAD_X86 if does.mnemonic == "mov" else LOAD_ARM).fullmatch(does.operands)
        if load and does.mnemonic in ("mov", "ldr") and load[1] == register:
            return load[2], int(load[3] or "0", 0), tested
        if does.mnemonic in ("call", "bl", "blr") and not KEPT.fullmatch(register):
            return None, None, tested  # the callee may have put anything there
        if operands[0] not in (register, _narrow(register)) or does.mnemonic in ("push", "str", "stp", "stur"):
            continue
        if does.mnemonic != "mov" or not re.fullmatch(r"[rx]\w+", operands[1]):
            return None, None, tested  # it comes from elsewhere
        register = operands[1]  # mov x16, x2; br x16
        same |= {register, _narrow(register)}
    return None, None, tested


def _compares(instruction: Instruction, base: str, offset: int | None) -> bool:
    """`cmp qword ptr [base + offset], 0`: tested in memory and loaded afterwards."""
    memory = MEMORY_X86.search(instruction.operands) if instruction.mnemonic == "cmp" else None
    return memory is not None and memory[1] == base and int(memory[2] or "0", 0) == offset


def _narrow(register: str) -> str:
    return f"e{register[1:]}" if re.fullmatch(r"r[a-z]\w", register) else f"{register}d"
