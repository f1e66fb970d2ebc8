# SPDX-License-Identifier: GPL-2.0-or-later
"""Code, read: a function as instructions with names, and its indirect calls with what is known of their targets."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from ejectable.kernel.machine.cpu import thunk_registers
from ejectable.kernel.program import SUFFIX, NotMapped, Program, Symbol

__all__ = ["IndirectCall", "Instruction", "function_parts", "indirect_calls", "listing"]

# A function longer than this is none, but a symbol table without an end.
MOST_CODE = 1 << 16
WINDOW = 16  # instructions in front of a call that may load its target or test it
LOAD_X86 = re.compile(r"(r\w+), qword ptr \[(r\w+)(?: \+ (0x[0-9a-f]+|\d+))?\]")
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


CONDITIONAL = re.compile(r"j(?!mp)\w+|b\.\w+|cbn?z|tbn?z")
TAKEN_FOR_ZERO = frozenset(("je", "jz", "cbz", "b.eq"))
BRANCH = re.compile(r"(?:call|j\w+|bl?|b\.\w+|cbn?z|tbn?z)")
ADDRESS = re.compile(r"#?(0x[0-9a-f]+)$")


def _target(mnemonic: str, operands: str) -> int | None:
    found = ADDRESS.search(operands) if BRANCH.fullmatch(mnemonic) and "[" not in operands else None
    return int(found[1], 16) if found else None


def indirect_calls(program: Program, function: str | Symbol) -> list[IndirectCall]:
    """Every indirect call of a function, in order of address."""
    code = list(listing(program, function))
    thunks = thunk_registers(program.symbols) if program.arch == "x86_64" else {}
    targets = {instruction.target for instruction in code if instruction.target is not None}
    found = []
    for index, instruction in enumerate(code):
        through = _through(thunks, instruction)
        if through is None:
            continue
        before = code[max(0, index - WINDOW) : index]
        register, base, offset = through
        test: int | None = None
        if base is None and register is not None:
            base, offset, test = _trace(before, register)
        if base is not None and test is None:
            tests = [earlier.address for earlier in before if _compares(earlier, base, offset)]
            test = tests[-1] if tests else None
        # A test counts if nobody can jump in behind it, and if it is zero that leads away from here.
        around = test is not None and any(test < target <= instruction.address for target in targets)
        tested = None if around else test is not None and _leads_away(before, test, instruction.address)
        tail = instruction.mnemonic in ("jmp", "br")
        found.append(IndirectCall(instruction.address, register, base, offset, tested, tail))
    return found


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


def _trace(before: list[Instruction], register: str) -> tuple[str | None, int | None, int | None]:
    """Base and offset that the register was loaded from, and the address of its comparison with zero since."""
    tested = None
    same = {register, _narrow(register)}
    for instruction in reversed(before):
        operands = [part.strip() for part in instruction.operands.split(",")]
        if instruction.mnemonic in ("test", "cbz", "cbnz", "cmp", "tst") and operands[0] in same:
            tested = tested or instruction.address
        load = (LOAD_X86 if instruction.mnemonic == "mov" else LOAD_ARM).fullmatch(instruction.operands)
        if load and instruction.mnemonic in ("mov", "ldr") and load[1] == register:
            return load[2], int(load[3] or "0", 0), tested
        if instruction.mnemonic == "mov" and operands[0] == register:
            if not re.fullmatch(r"[rx]\w+", operands[1]):
                return None, None, tested
            register = operands[1]  # mov x16, x2; br x16
            same |= {register, _narrow(register)}
    return None, None, tested


def _leads_away(before: list[Instruction], test: int, call: int) -> bool:
    """Whether the first branch behind the comparison is taken for zero, and goes elsewhere than to the call."""
    for instruction in before:
        if instruction.address >= test and CONDITIONAL.fullmatch(instruction.mnemonic):
            here = instruction.target is not None and test < instruction.target <= call
            return instruction.mnemonic in TAKEN_FOR_ZERO and not here
    return False


def _compares(instruction: Instruction, base: str, offset: int | None) -> bool:
    """`cmp qword ptr [base + offset], 0`: tested in memory and loaded afterwards."""
    memory = MEMORY_X86.search(instruction.operands) if instruction.mnemonic == "cmp" else None
    return memory is not None and memory[1] == base and int(memory[2] or "0", 0) == offset


def _narrow(register: str) -> str:
    return f"e{register[1:]}" if re.fullmatch(r"r[a-z]\w", register) else f"{register}d"
