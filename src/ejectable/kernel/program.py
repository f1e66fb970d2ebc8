# SPDX-License-Identifier: GPL-2.0-or-later
"""What the readers of kernels produce and everything above them uses: code at addresses, names, types.

A `Program` is a piece of kernel that can be read, disassembled and run: a vmlinux, or a module whose relocations
were applied. It knows no file format and no defect.
"""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from ejectable.model import Arch

__all__ = [
    "Image",
    "Member",
    "NotMapped",
    "Program",
    "Segment",
    "Struct",
    "Symbol",
    "SymbolTable",
    "Types",
    "searchable",
]


CHUNK = 1 << 17


class NotMapped(LookupError):
    """An address that no segment of the image holds; `address` is virtual."""

    def __init__(self, address: int) -> None:
        super().__init__(f"address {address:#x} is not in the image")
        self.address = address


class Segment(msgspec.Struct, frozen=True):
    """A run of memory: `data` stands at virtual address `address`, zeroes fill it up to `size` bytes."""

    address: int
    data: memoryview
    size: int  # at least len(data)
    executable: bool
    name: str  # ".text", "LOAD 0": for messages


class Image:
    """Memory as the kernel's image lays it out, by virtual address. Segments do not overlap."""

    def __init__(self, arch: Arch, segments: Iterable[Segment]) -> None:
        self.arch = arch
        self.segments = tuple(sorted(segments, key=lambda segment: segment.address))
        self._starts = [segment.address for segment in self.segments]

    def segment_at(self, address: int) -> Segment:
        """The segment that holds `address`; raises `NotMapped`."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.segments[index].address + self.segments[index].size:
            raise NotMapped(address)
        return self.segments[index]

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at `address`, from one segment; raises `NotMapped`."""
        segment = self.segment_at(address)
        start = address - segment.address
        if start + size > segment.size:
            raise NotMapped(segment.address + segment.size)
        data = bytes(segment.data[start : start + size])
        return data + bytes(size - len(data))

    def occurrences(self, needle: bytes) -> Iterator[tuple[Segment, int]]:
        """Where `needle` stands: segment, and offset in bytes into it. Begins near the end of each segment, because
        what describes a kernel, its symbols and types, is linked behind its code.
        """
        # A memoryview cannot be searched, and a copy of the whole would cost time and memory.
        for segment in self.segments:
            for start in range((len(segment.data) - 1) // CHUNK * CHUNK, -1, -CHUNK):
                piece = bytes(segment.data[start : start + CHUNK + len(needle) - 1])
                position = piece.find(needle)
                while position >= 0:
                    yield segment, start + position
                    position = piece.find(needle, position + 1)


class Symbol(msgspec.Struct, frozen=True):
    """A name at a virtual address. `size` in bytes; 0 where neither the table nor the next symbol tells."""

    name: str
    address: int
    size: int
    kind: str  # nm's letter: T, t, D, d, R, r, B, b, A, W, ...; "U" for an undefined one (a module's stub)


# What compilers append to a function that they split, cloned or promoted: foo.llvm.123, foo.cold, foo.isra.0,
# foo.constprop.0, foo.part.0, foo.__uniq.123, foo.lto_priv.0.
SUFFIX = re.compile(r"\.(?:llvm\.\d+|cold(?:\.\d+)?|isra\.\d+|constprop\.\d+|part\.\d+|__uniq\.\d+|lto_priv\.\d+)")


class SymbolTable:
    """Symbols by name and by address."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._by_address = sorted(symbols, key=lambda symbol: symbol.address)
        self._addresses = [symbol.address for symbol in self._by_address]
        self._by_name: dict[str, list[Symbol]] = {}
        self._names: list[str] | None = None
        for symbol in self._by_address:
            self._by_name.setdefault(symbol.name, []).append(symbol)

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._by_address)

    def get(self, name: str) -> Symbol | None:
        """The symbol of exactly this name; the first by address where several share it."""
        return next(iter(self._by_name.get(name, ())), None)

    def variants(self, name: str) -> tuple[Symbol, ...]:
        """Every symbol whose source name is `name`: itself and its compiler-made variants, by address."""
        if self._names is None:
            self._names = sorted(self._by_name)  # many defects ask for many names
        start = bisect.bisect_left(self._names, name)
        found: list[Symbol] = []
        for at in range(start, len(self._names)):
            other = self._names[at]
            if not other.startswith(name):
                break
            if other == name or self.source_name(other) == name:
                found += self._by_name[other]
        return tuple(sorted(found, key=lambda symbol: symbol.address))

    @staticmethod
    def source_name(name: str) -> str:
        """`name` without what the compiler appended."""
        return SUFFIX.sub("", name)

    def function(self, name: str) -> Symbol | None:
        """The whole function of this source name: exact, else `.llvm.N` and other clones; never a `.cold` part."""
        return self.get(name) or next(
            (s for s in self.variants(name) if ".cold" not in s.name and ".part." not in s.name), None
        )

    def at(self, address: int) -> tuple[Symbol, int] | None:
        """The symbol that holds `address` and the offset into it, in bytes."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        symbol = self._by_address[index]
        offset = address - symbol.address
        return (symbol, offset) if offset < symbol.size or not symbol.size else None

    def describe(self, address: int) -> str:
        """`virtblk_remove+0x6e`, or the bare address where no symbol holds it."""
        found = self.at(address)
        return f"{found[0].name}+{found[1]:#x}" if found else f"{address:#x}"


class Member(msgspec.Struct, frozen=True):
    """One member of a struct or union. `bit_offset` and `bit_size` in bits, from the start of the outermost struct."""

    name: str  # empty for an anonymous struct or union
    bit_offset: int
    bit_size: int  # 0 where the type has no size (a flexible array)
    type_name: str  # as C spells it, for people: "bool (*)(struct virtio_device *, unsigned int)"
    is_bitfield: bool = False

    @property
    def offset(self) -> int:
        """In bytes."""
        return self.bit_offset // 8

    @property
    def size(self) -> int:
        """In bytes, rounded up."""
        return (self.bit_size + 7) // 8


class Struct(msgspec.Struct, frozen=True):
    """A struct or union: `size` in bytes, members in order of declaration."""

    name: str
    size: int
    members: tuple[Member, ...]
    kind: Literal["struct", "union"] = "struct"


class Types(Protocol):
    """The kernel's types, from BTF or DWARF."""

    source: Literal["btf", "dwarf"]

    def struct(self, name: str) -> Struct | None:
        """The struct or union of this name (without the keyword), or `None`."""

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a dotted path, `member("virtio_pci_device", "vdev.vqs.next")`, through anonymous ones."""

    def homonyms(self, name: str, having: Sequence[str] = ()) -> tuple[str, ...]:
        """A name for each different struct of this name that has these members; `struct` and `member` take it."""

    def enum(self, name: str) -> dict[str, int] | None:
        """The enumerators of the enum of this name, or `None`."""


class Program(msgspec.Struct, frozen=True):
    """A piece of kernel that can be read and run."""

    name: str  # "vmlinux", "virtio_pci": for messages
    image: Image
    symbols: SymbolTable
    types: Types | None
    # The first and the last of its own functions, if image and symbols hold more than this piece: a module in memory.
    own: tuple[int, int] | None = None

    @property
    def arch(self) -> Arch:
        """The instruction set of its code."""
        return self.image.arch


def searchable(raw: memoryview) -> bytes | bytearray:
    """Bytes with a `find`, which a memoryview lacks: without a copy where the view is of the whole of some."""
    whole = raw.obj
    return whole if isinstance(whole, bytes | bytearray) and len(whole) == len(raw) else bytes(raw)
