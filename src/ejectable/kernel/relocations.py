# SPDX-License-Identifier: GPL-2.0-or-later
"""Relocations as the kernel's module loader applies them: x86-64 and arm64, each checked for its range.

Numbers and formulas: the System V psABI for x86-64, section 4.4, and the ELF for the Arm 64-bit Architecture
ABI, section 5.7. `value` is S + A, `place` is P, all modulo 2**64.
"""

import struct
from collections.abc import Callable, Mapping

from ejectable.model import Arch

__all__ = ["APPLY", "RELA", "Refused"]

RELA = struct.Struct("<QQq")
MASK = (1 << 64) - 1


class Refused(ValueError):
    """A relocation of a type that is not known, or whose value does not fit."""


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def _fitting(value: int, bits: int) -> int:
    """`value` as a signed number of `bits` bits."""
    value = _signed(value)
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise Refused(f"{value:#x} does not fit in {bits} bits")
    return value


def _x86_64(target: bytearray, offset: int, kind: int, value: int, place: int) -> None:
    match kind:
        case 0:  # R_X86_64_NONE
            pass
        case 1:  # R_X86_64_64
            struct.pack_into("<Q", target, offset, value & MASK)
        case 2 | 4:  # R_X86_64_PC32, R_X86_64_PLT32: within reach there is no PLT in a module
            struct.pack_into("<i", target, offset, _fitting(value - place, 32))
        case 10:  # R_X86_64_32
            if value >> 32:
                raise Refused(f"{value:#x} does not fit in 32 bits")
            struct.pack_into("<I", target, offset, value)
        case 11:  # R_X86_64_32S
            struct.pack_into("<i", target, offset, _fitting(value, 32))
        case 24:  # R_X86_64_PC64
            struct.pack_into("<Q", target, offset, value - place & MASK)
        case _:
            raise Refused(f"relocation type {kind} is not known on x86-64")


# arm64 instructions: type → (lowest bit of the value that is kept, bits kept, range in bits or None, position of
# the field). The value is relative to the place for branches and literals.
BRANCHES: Mapping[int, tuple[int, int]] = {  # type → (bits of the field, its position)
    273: (19, 5),  # R_AARCH64_LD_PREL_LO19
    279: (14, 5),  # R_AARCH64_TSTBR14
    280: (19, 5),  # R_AARCH64_CONDBR19
    282: (26, 0),  # R_AARCH64_JUMP26
    283: (26, 0),  # R_AARCH64_CALL26
}
LOW12: Mapping[int, int] = {  # type → shift of the access size
    277: 0,  # R_AARCH64_ADD_ABS_LO12_NC
    278: 0,  # R_AARCH64_LDST8_ABS_LO12_NC
    284: 1,  # R_AARCH64_LDST16_ABS_LO12_NC
    285: 2,  # R_AARCH64_LDST32_ABS_LO12_NC
    286: 3,  # R_AARCH64_LDST64_ABS_LO12_NC
    299: 4,  # R_AARCH64_LDST128_ABS_LO12_NC
}
MOVW: Mapping[int, tuple[int, bool]] = {  # type → (which 16 bits, checked for overflow)
    263: (0, True),  # R_AARCH64_MOVW_UABS_G0
    264: (0, False),  # ..._G0_NC
    265: (1, True),
    266: (1, False),
    267: (2, True),
    268: (2, False),
    269: (3, False),  # R_AARCH64_MOVW_UABS_G3
}
MOVW_PREL: Mapping[int, tuple[int, bool]] = {
    287: (0, True),  # R_AARCH64_MOVW_PREL_G0
    288: (0, False),
    289: (1, True),
    290: (1, False),
    291: (2, True),
    292: (2, False),
    293: (3, False),  # R_AARCH64_MOVW_PREL_G3
}
MOVW_SABS: Mapping[int, int] = {270: 0, 271: 1, 272: 2}  # R_AARCH64_MOVW_SABS_G0 ... G2


def _insert(target: bytearray, offset: int, position: int, bits: int, value: int) -> None:
    """Put `value` into `bits` bits at `position` of the instruction at `offset`."""
    (instruction,) = struct.unpack_from("<I", target, offset)
    mask = (1 << bits) - 1 << position
    struct.pack_into("<I", target, offset, instruction & ~mask | value << position & mask)


def _aarch64(target: bytearray, offset: int, kind: int, value: int, place: int) -> None:
    match kind:
        case 0 | 256:  # R_AARCH64_NONE, and its withdrawn number
            pass
        case 257:  # R_AARCH64_ABS64
            struct.pack_into("<Q", target, offset, value & MASK)
        case 258:  # R_AARCH64_ABS32: signed or unsigned
            if not -(1 << 31) <= _signed(value) < 1 << 32:
                raise Refused(f"{value:#x} does not fit in 32 bits")
            struct.pack_into("<I", target, offset, value & 0xFFFF_FFFF)
        case 259:  # R_AARCH64_ABS16
            if not -(1 << 15) <= _signed(value) < 1 << 16:
                raise Refused(f"{value:#x} does not fit in 16 bits")
            struct.pack_into("<H", target, offset, value & 0xFFFF)
        case 260:  # R_AARCH64_PREL64
            struct.pack_into("<Q", target, offset, value - place & MASK)
        case 261 | 314:  # R_AARCH64_PREL32, R_AARCH64_PLT32
            struct.pack_into("<i", target, offset, _fitting(value - place, 32))
        case 262:  # R_AARCH64_PREL16
            struct.pack_into("<h", target, offset, _fitting(value - place, 16))
        case 274 | 275 | 276:  # R_AARCH64_ADR_PREL_LO21, ADR_PREL_PG_HI21, ADR_PREL_PG_HI21_NC
            delta = value - place if kind == 274 else ((value & MASK) >> 12) - (place >> 12)
            delta = _fitting(delta, 21) if kind != 276 else _signed(delta)
            _insert(target, offset, 29, 2, delta & 3)
            _insert(target, offset, 5, 19, delta >> 2)
        case _ if kind in BRANCHES:
            bits, position = BRANCHES[kind]
            delta = _fitting(value - place, bits + 2)
            if delta & 3:
                raise Refused(f"the branch distance {delta:#x} is no multiple of 4")
            _insert(target, offset, position, bits, delta >> 2)
        case _ if kind in LOW12:
            _insert(target, offset, 10, 12 - LOW12[kind], (value & 0xFFF) >> LOW12[kind])
        case _ if kind in MOVW:
            group, checked = MOVW[kind]
            if checked and (value & MASK) >> 16 * (group + 1):
                raise Refused(f"{value:#x} does not fit in {16 * (group + 1)} bits")
            _insert(target, offset, 5, 16, (value & MASK) >> 16 * group)
        case _ if kind in MOVW_PREL or kind in MOVW_SABS:
            _move_signed(target, offset, kind, value, place)
        case _:
            raise Refused(f"relocation type {kind} is not known on arm64")


def _move_signed(target: bytearray, offset: int, kind: int, value: int, place: int) -> None:
    """MOVZ for a value that is positive, MOVN of its complement for a negative one (opc, bits 29 and 30)."""
    group, checked = MOVW_PREL[kind] if kind in MOVW_PREL else (MOVW_SABS[kind], True)
    signed = _signed(value - place if kind in MOVW_PREL else value)
    if checked:
        _fitting(signed, 16 * (group + 1) + 1)
        _insert(target, offset, 29, 2, 0b10 if signed >= 0 else 0b00)
        signed = signed if signed >= 0 else ~signed
    _insert(target, offset, 5, 16, signed >> 16 * group)


APPLY: Mapping[Arch, Callable[[bytearray, int, int, int, int], None]] = {"x86_64": _x86_64, "aarch64": _aarch64}
