# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF files of 64-bit little-endian kernels, read without trust: headers, segments, sections, notes.

Layout: include/uapi/linux/elf.h and the System V ABI, chapters "Object Files" and "Program Loading". Every
offset is checked against the file before it is used, and every table against a ceiling.
"""

import struct
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.formats import foreign
from ejectable.model import Arch

__all__ = [
    "SHF_ALLOC",
    "SHF_EXECINSTR",
    "SHT_NOBITS",
    "SHT_RELA",
    "SHT_SYMTAB",
    "Elf",
    "Load",
    "Section",
    "is_elf",
    "notes",
    "string_at",
]

MAGIC = b"\x7fELF"
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
SHDR = struct.Struct("<IIQQQQIIQQ")
MACHINES: dict[int, Arch] = {62: "x86_64", 183: "aarch64"}
KINDS: dict[int, Literal["relocatable", "executable", "shared"]] = {1: "relocatable", 2: "executable", 3: "shared"}
PT_LOAD, PT_NOTE = 1, 4
PF_X, PF_W = 1, 2
SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS = 2, 3, 4, 7, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 1, 2, 4, 0x800
PN_XNUM = 0xFFFF
# A kernel built with -ffunction-sections has some 200,000 sections before it is linked; a module a few thousand.
MOST_SECTIONS = 1 << 19
NT_GNU_BUILD_ID = 3


class Load(msgspec.Struct, frozen=True):
    """A PT_LOAD program header: `data` at virtual `address`, zeroes up to `size` bytes in memory."""

    address: int
    physical: int
    data: memoryview
    size: int
    executable: bool
    writable: bool


class Section(msgspec.Struct, frozen=True):
    """A section header. `offset` and `size` in bytes; a NOBITS section has a size but no bytes in the file."""

    index: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Elf:
    """One ELF file in memory; raises `BadInput` if it is another machine's, `DamagedInput` if it is broken.

    `name` is for messages. Properties parse on first use.
    """

    def __init__(self, data: bytes | memoryview, *, name: str) -> None:
        self.data = memoryview(data).toreadonly()
        self.name = name
        if len(self.data) < EHDR.size or bytes(self.data[:4]) != MAGIC:
            raise DamagedInput("expected an ELF header, the file is too short or is something else", path=name)
        (ident, kind, machine, _, _, self._phoff, self._shoff, _, _, phentsize, self._phnum, shentsize,
         self._shnum, self._shstrndx) = EHDR.unpack_from(self.data)  # fmt: skip
        arch = foreign.architecture(self.data)
        if arch is not None:
            raise foreign.refuse(arch, name)
        if ident[4] != 2 or ident[5] != 1:
            raise BadInput("an ELF file, but not of a 64-bit little-endian machine", path=name)
        if machine not in MACHINES:
            raise BadInput(f"an ELF file of machine number {machine}; x86-64 and arm64 are supported", path=name)
        if kind not in KINDS:
            raise BadInput(f"an ELF file of type {kind}, which is neither a kernel nor a module", path=name)
        if (self._phnum and phentsize != PHDR.size) or (self._shoff and shentsize != SHDR.size):
            raise DamagedInput("the ELF header gives impossible sizes of its tables' entries", path=name)
        self.arch: Arch = MACHINES[machine]
        self.kind = KINDS[kind]

    def slice(self, offset: int, size: int, what: str) -> memoryview:
        """`size` bytes of the file at `offset`; raises `DamagedInput`, naming `what`, if they are not there."""
        if offset + size > len(self.data):
            raise DamagedInput(f"{what} ends outside the file of {len(self.data)} bytes", path=self.name, offset=offset)
        return self.data[offset : offset + size]

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """The PT_LOAD program headers, in the order of the file."""
        return tuple(
            Load(vaddr, paddr, self.slice(offset, filesz, "a program segment"), memsz, bool(flags & PF_X),
                 bool(flags & PF_W))
            for kind, flags, offset, vaddr, paddr, filesz, memsz, _ in self._program_headers()
            if kind == PT_LOAD and self._sane(vaddr, filesz, memsz)
        )  # fmt: skip

    def _program_headers(self) -> Iterator[tuple[int, int, int, int, int, int, int, int]]:
        if self._phnum == PN_XNUM:
            raise DamagedInput("more program headers than any kernel has", path=self.name)
        table = self.slice(self._phoff, self._phnum * PHDR.size, "the table of program headers")
        return PHDR.iter_unpack(table)

    def _sane(self, address: int, in_file: int, in_memory: int) -> bool:
        if in_file > in_memory or address + in_memory > 1 << 64:
            raise DamagedInput(f"the program segment at {address:#x} has impossible sizes", path=self.name)
        return in_memory > 0

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections by index; empty where the file has no section headers."""
        if not self._shoff:
            return ()
        first = SHDR.unpack(self.slice(self._shoff, SHDR.size, "the table of sections"))
        # Counts that do not fit the header's 16 bits stand in the first, otherwise empty section header.
        count = self._shnum or first[5]
        names_index = first[6] if self._shstrndx == 0xFFFF else self._shstrndx
        if count > MOST_SECTIONS:
            raise DamagedInput(f"{count} sections are more than any kernel has", path=self.name)
        headers = list(SHDR.iter_unpack(self.slice(self._shoff, count * SHDR.size, "the table of sections")))
        names = b""
        if 0 < names_index < count:
            names = bytes(self.slice(headers[names_index][4], headers[names_index][5], "the table of section names"))
        return tuple(
            Section(index, string_at(names, h[0]), h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9])
            for index, h in enumerate(headers)
        )

    @cached_property
    def _by_name(self) -> dict[str, Section]:
        return {section.name: section for section in reversed(self.sections)}

    def section(self, name: str) -> Section | None:
        """The first section of this name."""
        return self._by_name.get(name)

    def content(self, section: Section) -> memoryview:
        """The bytes of a section; empty for a NOBITS one; raises `DamagedInput` if they are not in the file."""
        if section.type == SHT_NOBITS:
            return memoryview(b"")
        return self.slice(section.offset, section.size, f"section {section.name or section.index}")

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build-id in lower-case hex, from note sections or segments."""
        areas = [self.content(s) for s in self.sections if s.type == SHT_NOTE]
        if not areas:
            areas = [self.slice(h[2], h[5], "a note segment") for h in self._program_headers() if h[0] == PT_NOTE]
        for area in areas:
            for owner, kind, text in notes(area):
                if owner == b"GNU" and kind == NT_GNU_BUILD_ID and text:
                    return text.hex()
        return None


def is_elf(data: memoryview) -> bool:
    """Whether `data` begins like an ELF file."""
    return bytes(data[:4]) == MAGIC


def string_at(table: bytes | memoryview, offset: int) -> str:
    """The NUL-terminated string at `offset`; what is cut off ends at the end of the table."""
    if offset >= len(table):
        return ""
    raw = bytes(table[offset : offset + 1024])
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def notes(area: memoryview) -> Iterator[tuple[bytes, int, bytes]]:
    """Owner, type and content of each ELF note in `area`, as far as they are whole."""
    position = 0
    while position + 12 <= len(area):
        name_size, size, kind = struct.unpack_from("<III", area, position)
        start = position + 12 + (name_size + 3 & ~3)
        position = start + (size + 3 & ~3)
        if start + size > len(area):
            return
        yield bytes(area[start - (name_size + 3 & ~3) :][:name_size]).rstrip(b"\0"), kind, bytes(area[start:][:size])
