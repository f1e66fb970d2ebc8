# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbols of an ELF file that was not stripped.

Layout: System V ABI, "Symbol Table"; struct elf64_sym in include/uapi/linux/elf.h.
"""

import struct
from collections.abc import Mapping

from ejectable.errors import DamagedInput
from ejectable.kernel.formats.elf import SHF_EXECINSTR, SHT_NOBITS, SHT_SYMTAB, Elf, Section
from ejectable.kernel.program import Symbol, SymbolTable

__all__ = ["read_elf_symbols"]

SYM = struct.Struct("<IBBHQQ")
SHN_UNDEF, SHN_ABS, SHN_XINDEX, SHN_LORESERVE = 0, 0xFFF1, 0xFFFF, 0xFF00
STT_OBJECT, STT_SECTION, STT_FILE = 1, 3, 4
STB_LOCAL, STB_WEAK = 0, 2
SHF_WRITE = 1
SHT_SYMTAB_SHNDX = 18
MOST_SYMBOLS = 1 << 22
MOST_NAME = 4096


def read_elf_symbols(data: bytes | memoryview, *, sections: Mapping[int, int] | None = None) -> SymbolTable:
    """The symbols in .symtab; empty where there is none.

    `sections` gives the address of each loaded section of a relocatable file, by index; symbols of other sections
    are left out. Undefined symbols are left out too. Raises `DamagedInput`, and `BadInput` if `data` is no ELF file.
    """
    elf = Elf(data, name="the ELF file")
    table = next((section for section in elf.sections if section.type == SHT_SYMTAB), None)
    if table is None:
        return SymbolTable(())
    raw = elf.content(table)
    if table.link >= len(elf.sections) or len(raw) // SYM.size > MOST_SYMBOLS:
        raise DamagedInput("its symbol table names no table of strings, or is longer than any kernel's")
    names = bytes(elf.content(elf.sections[table.link]))
    extended = _extended(elf)
    relocatable = elf.kind == "relocatable"
    found = []
    for number, (name_at, info, _, index, value, size) in enumerate(
        SYM.iter_unpack(raw[: len(raw) // SYM.size * SYM.size])
    ):
        kind = info & 0xF
        if index == SHN_UNDEF or kind in (STT_SECTION, STT_FILE):
            continue
        if index == SHN_XINDEX:
            index = extended[number] if number < len(extended) else SHN_XINDEX  # noqa: PLW2901  (what it stands for)
        elif index >= SHN_LORESERVE and index != SHN_ABS:
            continue
        end = names.find(b"\0", name_at, name_at + MOST_NAME)
        name = names[name_at : end if end >= 0 else name_at + MOST_NAME].decode("utf-8", "replace")
        # arm64's mapping symbols tell code from data and name nothing (ELF for the Arm 64-bit Architecture, 5.5.4).
        if not name or name[0] == "$":
            continue
        section = elf.sections[index] if index < len(elf.sections) else None
        address = value
        if relocatable and index != SHN_ABS:
            base = (sections or {}).get(index)
            if base is None:
                continue
            address = base + value
        found.append(Symbol(name, address & (1 << 64) - 1, size, _letter(info, index, section)))
    return SymbolTable(found)


def _extended(elf: Elf) -> memoryview:
    """The section indexes that do not fit a symbol's 16 bits."""
    section = next((section for section in elf.sections if section.type == SHT_SYMTAB_SHNDX), None)
    raw = elf.content(section) if section is not None else memoryview(b"")
    return raw[: len(raw) // 4 * 4].cast("I")


def _letter(info: int, index: int, section: Section | None) -> str:
    """The letter that nm prints."""
    binding = info >> 4
    if binding == STB_WEAK:
        return "V" if info & 0xF == STT_OBJECT else "W"
    if index == SHN_ABS or section is None:
        letter = "a"
    elif section.flags & SHF_EXECINSTR:
        letter = "t"
    elif section.type == SHT_NOBITS:
        letter = "b"
    else:
        letter = "d" if section.flags & SHF_WRITE else "r"
    return letter if binding == STB_LOCAL else letter.upper()
