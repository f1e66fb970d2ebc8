# SPDX-License-Identifier: GPL-2.0-or-later
"""A relocatable module, virtio_pci.ko, linked into an address space of ours so that its code can be run.

What the kernel's module loader does (kernel/module/main.c, arch/*/kernel/module.c), without a kernel: sections
get addresses, relocations are applied, and every symbol that the kernel would have provided gets an address of
its own in a segment named "undefined", so that a call that leaves the module can be told by name.
"""

import struct
from functools import cached_property

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel import relocations
from ejectable.kernel.formats.elf import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHT_NOBITS,
    SHT_RELA,
    SHT_SYMTAB,
    Elf,
    Section,
    string_at,
)
from ejectable.kernel.program import Image, Segment, Symbol, SymbolTable

__all__ = ["STUBS", "Module"]

# Where modules live: 1 GiB below the top on x86-64 (Documentation/arch/x86/x86_64/mm.rst), below the kernel's own
# image on arm64 (arch/arm64/include/asm/memory.h). Far enough from any vmlinux, near enough for their branches.
BASE = {"x86_64": 0xFFFF_FFFF_C040_0000, "aarch64": 0xFFFF_8000_0100_0000}
STUBS = "undefined"  # the name of the segment of stubs
STUB_SIZE = 16
PAGE = 4096
MOST_SYMBOLS = 1 << 20
MOST_MEMORY = 64 << 20  # the kernel's own region for modules is of this order

SYM = struct.Struct("<IBBHQQ")
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
STT_SECTION, STT_FILE = 3, 4
STB_LOCAL, STB_WEAK = 0, 2
SHF_WRITE = 1


class _Sym(msgspec.Struct, frozen=True):
    name: str
    info: int
    shndx: int
    value: int
    size: int


class Module:
    """One .ko file; `data` is unpacked. Raises `BadInput` or `DamagedInput`, from properties too."""

    def __init__(self, data: bytes | memoryview, *, name: str) -> None:
        self.elf = Elf(data, name=name)
        self.file = name
        if self.elf.kind != "relocatable":
            raise BadInput("an ELF file, but no kernel module: it is not relocatable", path=name)

    @cached_property
    def modinfo(self) -> dict[str, str]:
        """The `key=value` strings of .modinfo; the first of several with the same key."""
        section = self.elf.section(".modinfo")
        if section is None:
            return {}
        found: dict[str, str] = {}
        for entry in bytes(self.elf.content(section)).split(b"\0"):
            key, equals, value = entry.partition(b"=")
            if equals:
                found.setdefault(key.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
        return found

    @property
    def name(self) -> str | None:
        """The module's own name."""
        return self.modinfo.get("name")

    @property
    def release(self) -> str | None:
        """The kernel release it was built for: the first word of vermagic (include/linux/vermagic.h)."""
        return next(iter(self.modinfo.get("vermagic", "").split()), None)

    @property
    def btf(self) -> memoryview | None:
        """The raw .BTF section, split over the kernel's own types."""
        return self._raw(".BTF")

    @property
    def btf_base(self) -> memoryview | None:
        """The raw .BTF.base section (since v6.11): as much of the kernel's types as this module refers to."""
        return self._raw(".BTF.base")

    def _raw(self, name: str) -> memoryview | None:
        section = self.elf.section(name)
        return self.elf.content(section) if section is not None and section.size else None

    @cached_property
    def _addresses(self) -> dict[int, int]:
        """Address of each section that is loaded, by index."""
        addresses = {}
        position = BASE[self.elf.arch]
        # Executable sections first and each group from a page of its own, as the module loader lays them out.
        for executable in (True, False):
            for section in self.elf.sections:
                if not section.flags & SHF_ALLOC or bool(section.flags & SHF_EXECINSTR) is not executable:
                    continue
                # A page of its own, so that no two segments share one.
                position = -(-position // PAGE) * PAGE
                if section.alignment > PAGE or section.size > MOST_MEMORY:
                    raise DamagedInput(f"section {section.name} has an impossible size", path=self.file)
                addresses[section.index] = position
                position += max(section.size, 1)
                if position - BASE[self.elf.arch] > MOST_MEMORY:
                    raise DamagedInput("its sections add up to more than any module has", path=self.file)
        return addresses

    @cached_property
    def _stubs_at(self) -> int:
        last = max(self._addresses.items(), key=lambda item: item[1], default=(0, BASE[self.elf.arch]))
        size = self.elf.sections[last[0]].size if last[0] else 0
        return -(-(last[1] + size + 1) // PAGE) * PAGE

    @cached_property
    def _table(self) -> tuple[_Sym, ...]:
        """The symbol table by index, names resolved."""
        section = next((s for s in self.elf.sections if s.type == SHT_SYMTAB), None)
        if section is None:
            raise DamagedInput("a module without a symbol table cannot be linked", path=self.file)
        raw = self.elf.content(section)
        if section.link >= len(self.elf.sections) or len(raw) // SYM.size > MOST_SYMBOLS:
            raise DamagedInput("its symbol table is out of bounds", path=self.file)
        names = bytes(self.elf.content(self.elf.sections[section.link]))
        entries = SYM.iter_unpack(raw[: len(raw) // SYM.size * SYM.size])
        return tuple(_Sym(string_at(names, e[0]), e[1], e[3], e[4], e[5]) for e in entries)

    @cached_property
    def _values(self) -> tuple[int | None, ...]:
        """The address of each symbol; `None` for one of a section that is not loaded."""
        values: list[int | None] = []
        stub = self._stubs_at
        for symbol in self._table:
            if symbol.shndx == SHN_UNDEF:
                if not symbol.name:
                    values.append(0)
                    continue
                values.append(stub)
                stub += STUB_SIZE
            elif symbol.shndx == SHN_ABS:
                values.append(symbol.value)
            elif symbol.shndx in self._addresses:
                values.append(self._addresses[symbol.shndx] + symbol.value)
            else:
                values.append(None)
        return tuple(values)

    @cached_property
    def symbols(self) -> SymbolTable:
        """Its functions and objects at their addresses, and what it takes from elsewhere, of kind "U"."""
        found = []
        for symbol, value in zip(self._table, self._values, strict=True):
            if value is None or not symbol.name or symbol.info & 0xF in (STT_SECTION, STT_FILE):
                continue
            if symbol.name.startswith("$"):  # arm64's mapping symbols say where data lies between code
                continue
            if symbol.shndx == SHN_UNDEF:
                found.append(Symbol(symbol.name, value, STUB_SIZE, "U"))
            else:
                found.append(Symbol(symbol.name, value, symbol.size, self._letter(symbol)))
        return SymbolTable(found)

    def _letter(self, symbol: _Sym) -> str:
        """The letter that nm would print."""
        if symbol.info >> 4 == STB_WEAK:
            return "W"
        if symbol.shndx == SHN_ABS:
            letter = "a"
        else:
            section = self.elf.sections[symbol.shndx]
            if section.flags & SHF_EXECINSTR:
                letter = "t"
            elif section.type == SHT_NOBITS:
                letter = "b"
            else:
                letter = "d" if section.flags & SHF_WRITE else "r"
        return letter if symbol.info >> 4 == STB_LOCAL else letter.upper()

    @cached_property
    def image(self) -> Image:
        """Its sections in memory, relocated; raises `DamagedInput` on a relocation that cannot be applied."""
        loaded = {index: bytearray(self.elf.content(self.elf.sections[index])) for index in self._addresses}
        for section in self.elf.sections:
            if section.type == SHT_RELA and section.info in loaded:
                self._relocate(section, loaded[section.info])
        segments = [
            Segment(
                address,
                memoryview(loaded[index]).toreadonly(),
                max(self.elf.sections[index].size, 1),
                bool(self.elf.sections[index].flags & SHF_EXECINSTR),
                self.elf.sections[index].name,
            )
            for index, address in self._addresses.items()
        ]
        stubs = STUB_SIZE * sum(symbol.shndx == SHN_UNDEF for symbol in self._table)
        if stubs:
            segments.append(Segment(self._stubs_at, memoryview(b""), stubs, True, STUBS))
        return Image(self.elf.arch, segments)

    def _relocate(self, table: Section, target: bytearray) -> None:
        raw = self.elf.content(table)
        if len(raw) % relocations.RELA.size:
            raise DamagedInput(f"the relocations of {table.name} are cut off", path=self.file)
        apply = relocations.APPLY[self.elf.arch]
        place = self._addresses[table.info]
        for offset, info, addend in relocations.RELA.iter_unpack(raw):
            number = info >> 32
            if number >= len(self._values):
                raise DamagedInput(f"a relocation of {table.name} names symbol {number}, which is not there",
                                   path=self.file)  # fmt: skip
            value = self._values[number]
            if value is None:
                # A reference to what is thrown away (.discard, .exit on some configurations): nothing runs it.
                continue
            if offset >= len(target):
                raise DamagedInput(
                    f"relocation at {table.name}+{offset:#x} cannot be applied: it lies outside of its section",
                    path=self.file,
                )
            try:
                apply(target, offset, info & 0xFFFF_FFFF, value + addend, place + offset)
            except (relocations.Refused, struct.error) as error:
                raise DamagedInput(
                    f"relocation at {table.name}+{offset:#x} to {self._table[number].name or 'a section'} "
                    f"cannot be applied: {error}",
                    path=self.file,
                ) from error
