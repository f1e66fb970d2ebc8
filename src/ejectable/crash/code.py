# SPDX-License-Identifier: GPL-2.0-or-later
"""The `Code:` line, disassembled, with the trapping instruction marked.

x86 prints single bytes and puts the first one of the trapping instruction in `<>`; the others print whole words, with
`()` on ARM and `<>` elsewhere (`show_opcodes` and `dump_instr` in the architectures' traps.c).
"""

import re
from typing import Any

import msgspec

__all__ = ["Instruction", "disassemble"]

MOST_BYTES = 256
TOKEN = re.compile(r"[<(]?([0-9a-f]{2}|[0-9a-f]{4}|[0-9a-f]{8})[>)]?")


class Instruction(msgspec.Struct, frozen=True):
    """One instruction. `offset` in bytes from the trapping one."""

    offset: int
    text: str
    trapping: bool


def disassemble(code: str, arch: str | None) -> tuple[Instruction, ...]:
    """The instructions of a `Code:` line; none where it holds no bytes or the architecture is not known here."""
    data, trap = _bytes(code, arch)
    if not data or trap is None:
        return ()
    engine = _engine(arch)
    if engine is None:
        return ()
    found: list[Instruction] = []
    # x86 instructions have no fixed length: begin where the decoding meets the trapping one.
    for start in range(min(trap, 16) + 1) if arch in ("x86_64", "i386", None) else (0,):
        before = list(engine.disasm(data[start:trap], start))
        if trap == start or (before and before[-1].address + before[-1].size == trap):
            found = [_instruction(one, trap) for one in before[-6:]]
            break
    return (*found, *(_instruction(one, trap) for one in list(engine.disasm(data[trap:], trap))[:4]))


def _instruction(one: Any, trap: int) -> Instruction:
    address: int = one.address
    text = f"{one.mnemonic} {one.op_str}".strip()
    return Instruction(address - trap, text, address == trap)


def _bytes(code: str, arch: str | None) -> tuple[bytes, int | None]:
    data = bytearray()
    trap: int | None = None
    for token in code.split():
        match = TOKEN.fullmatch(token)
        if match is None or len(data) >= MOST_BYTES:
            break
        if token[0] in "<(":
            trap = len(data)
        piece = bytes.fromhex(match.group(1))
        # Words are printed as numbers; s390x, which is big-endian, prints what lies in memory.
        data += piece if len(piece) == 1 or arch == "s390x" else piece[::-1]
    return bytes(data), trap


def _engine(arch: str | None) -> Any:
    import capstone

    modes = {
        "x86_64": ("CS_ARCH_X86", "CS_MODE_64"),
        None: ("CS_ARCH_X86", "CS_MODE_64"),
        "i386": ("CS_ARCH_X86", "CS_MODE_32"),
        "aarch64": ("CS_ARCH_ARM64", "CS_MODE_ARM"),
        "arm": ("CS_ARCH_ARM", "CS_MODE_ARM"),
        "riscv64": ("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
        "ppc64le": ("CS_ARCH_PPC", "CS_MODE_64"),
        "s390x": ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN"),
    }
    if arch not in modes:
        return None
    family, mode = (getattr(capstone, name, None) for name in modes[arch])
    if family is None or mode is None:
        return None
    try:
        return capstone.Cs(family, mode)
    except capstone.CsError:
        return None
