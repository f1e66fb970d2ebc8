# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF, the kernel's own description of its types, read only where it is asked.

Layout: include/uapi/linux/btf.h and Documentation/bpf/btf.rst, all kinds up to 19 (ENUM64, v6.0). A kernel has more
than 100,000 types. Finding out where each begins takes a few hundredths of a second; a type itself is decoded when
somebody wants it, and a name is looked for among the strings and then among the types by its offset there.

A module's BTF is split (v5.11): its ids and its strings go on where those of its base end.
"""
# ruff: noqa: SLF001  (what is split asks its base, which is of the same class)

import bisect
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.program import Member, Struct
from ejectable.kernel.types.spelling import Spelling

__all__ = ["BtfTypes", "Record", "load_btf"]

MAGIC = 0xEB9F
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
ALIASES = frozenset((TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG))
# In 32-bit words behind the three of every type: once, and for each of its vlen elements.
EXTRA = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
KIND_FLAG = 1 << 31
POINTER = 8
DEEPEST = 64  # of typedefs, qualifiers and nested structs; the kernel's own limit is 32 (kernel/bpf/btf.c)
MOST_NAME = 1024
LARGEST = 1 << 40  # no type of more bits


class Record(msgspec.Struct, frozen=True):
    """The head of one type. `last` is its size in bytes or the id of the type it refers to; `at` its first word."""

    id: int
    name: int
    kind: int
    vlen: int
    flag: bool
    last: int
    at: int


class _Sizes(dict[int, int]):
    """The number of words of a type by its info word."""

    def __missing__(self, info: int) -> int:
        kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if not INT <= kind <= ENUM64:
            raise DamagedInput(f"BTF: a type of kind {kind}; kinds 1 to {ENUM64} are known")
        size = self[info] = 3 + EXTRA.get(kind, 0) + EACH.get(kind, 0) * vlen
        return size


def load_btf(data: bytes | memoryview, *, base: "BtfTypes | None" = None) -> "BtfTypes":
    """The types in a BTF blob, the raw content of a .BTF section; `base` is what a split one goes on from.

    Raises `BadInput` if it is no BTF, `DamagedInput` if it is broken; so do the methods of what it returns.
    """
    view = memoryview(data)
    if len(view) < 24:
        raise DamagedInput("BTF: it ends within its header")
    order: Literal["<", ">"] = "<" if view[0] == MAGIC & 0xFF else ">"
    magic, version, _, size, type_at, type_size, string_at, string_size = struct.unpack_from(f"{order}HBBIIIII", view)
    if magic != MAGIC or version != 1:
        raise BadInput(f"BTF: expected magic {MAGIC:#x} and version 1, found {magic:#x} and {version}")
    if size < 24 or type_size % 4:
        raise DamagedInput("BTF: its header gives impossible sizes")
    if max(size + type_at + type_size, size + string_at + string_size) > len(view):
        raise DamagedInput(f"BTF: its sections end outside of its {len(view)} bytes")
    strings = bytes(view[size + string_at :][:string_size])
    if not strings.endswith(b"\0") and (string_size or base is None):
        raise DamagedInput("BTF: its strings do not end with a NUL")
    return BtfTypes(bytes(view[size + type_at :][:type_size]), strings, base, order)


class BtfTypes:
    """The types of a kernel or of a module. Ids count from 1, 0 is void."""

    source: Literal["btf", "dwarf"] = "btf"

    def __init__(self, types: bytes, strings: bytes, base: "BtfTypes | None", order: Literal["<", ">"] = "<") -> None:
        self.base = base
        self._types = types
        self._strings = strings
        self._order = order
        self._first_string: int = base.string_end if base is not None else 0
        self._first_id: int = len(base) if base is not None else 1
        self._known: dict[tuple[str, tuple[int, ...]], Record | None] = {}
        # Experiments ask for the same few types again and again, and each answer is a search through all of them.
        self._structs: dict[str, Struct | None] = {}
        self._members_at: dict[tuple[str, str], Member | None] = {}
        self._homonyms: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    # --- what is asked ---------------------------------------------------------------------------------------------

    def struct(self, name: str) -> Struct | None:
        """The struct or union of this name (without the keyword), or `None`."""
        if name not in self._structs:
            self._structs[name] = self._struct(name)
        return self._structs[name]

    def _struct(self, name: str) -> Struct | None:
        record = self._first(name, (STRUCT, UNION))
        if record is None:
            return None
        members = tuple(member for member, _ in self._members(record))
        return Struct(name, record.last, members, "struct" if record.kind == STRUCT else "union")

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a dotted path, through anonymous structs and unions, or `None`."""
        key = struct, path
        if key not in self._members_at:
            self._members_at[key] = self._member(struct, path)
        return self._members_at[key]

    def _member(self, struct: str, path: str) -> Member | None:
        record = self._first(struct, (STRUCT, UNION))
        start = 0
        found: tuple[Member, int] | None = None
        for part in path.split("."):
            if record is None:
                return None
            found = self._find(record, part, set())
            if found is None:
                return None
            member, type_id = found
            found = msgspec.structs.replace(member, bit_offset=start + member.bit_offset), type_id
            start = found[0].bit_offset
            target = self.resolve(type_id)
            record = target if target is not None and target.kind in (STRUCT, UNION) else None
        return found[0] if found is not None else None

    def homonyms(self, name: str, having: Sequence[str] = ()) -> tuple[str, ...]:
        """As `Types.homonyms`: `name` itself where it is the only one, else `name#ID`; those laid out alike are one."""
        key = name, tuple(having)
        if key not in self._homonyms:
            self._homonyms[key] = self._homonyms_of(name, having)
        return self._homonyms[key]

    def _homonyms_of(self, name: str, having: Sequence[str]) -> tuple[str, ...]:
        found: dict[tuple[int, tuple[tuple[str, int, int], ...]], str] = {}
        for record in self._named(name, (STRUCT, UNION)):
            one = f"{name}#{record.id}"
            if all(self.member(one, path) is not None for path in having):
                layout = tuple((member.name, member.bit_offset, member.bit_size) for member, _ in self._members(record))
                found.setdefault((record.last, layout), one)
        return tuple(found.values()) if len(found) > 1 or having else (name,) * len(found)

    def enum(self, name: str) -> dict[str, int] | None:
        """The enumerators of the enum of this name, or `None`."""
        record = self._first(name, (ENUM, ENUM64))
        if record is None:
            return None
        values = {}
        for words in self._elements(record):
            value = words[1] | (words[2] << 32 if record.kind == ENUM64 else 0)
            bits = 64 if record.kind == ENUM64 else 32
            # The flag says signed (v6.0). Before, there was none, and -1 is told from 0xffffffff by nothing.
            values[self.string(words[0])] = value - (1 << bits) if record.flag and value >> (bits - 1) else value
        return values

    def __len__(self) -> int:
        """The number of types, void and those of the base included: the first id that is free."""
        return self._first_id + len(self._index)

    # --- types by id -----------------------------------------------------------------------------------------------

    def record(self, type_id: int) -> Record | None:
        """The head of a type; `None` for void. Raises `DamagedInput` if there is none of this id."""
        if not type_id:
            return None
        if type_id < self._first_id and self.base is not None:
            return self.base.record(type_id)
        place = type_id - self._first_id
        if place >= len(self._index):
            raise DamagedInput(f"BTF: there is no type {type_id}")
        return self._record_at(self._index[place], type_id)

    def resolve(self, type_id: int) -> Record | None:
        """The type behind typedefs and qualifiers; `None` for void."""
        for _ in range(DEEPEST):
            record = self.record(type_id)
            if record is None or record.kind not in ALIASES:
                return record
            type_id = record.last
        raise DamagedInput(f"BTF: type {type_id} leads in a circle")

    def bits(self, type_id: int) -> int:
        """The size of a type in bits; 0 for what has none."""
        factor = 8
        for _ in range(DEEPEST):
            record = self.resolve(type_id)
            if record is None:
                return 0
            if record.kind == ARRAY:
                type_id, _, count = self.array_of(record)
                factor *= count
                if factor > LARGEST:
                    raise DamagedInput("BTF: an array that is larger than any memory")
                continue
            if record.kind == PTR:
                return POINTER * factor
            return record.last * factor if record.kind in (INT, STRUCT, UNION, ENUM, ENUM64, FLOAT) else 0
        raise DamagedInput(f"BTF: array type {type_id} leads in a circle")

    def array_of(self, record: Record) -> tuple[int, int, int]:
        """Element type, index type and number of elements."""
        words = self._owner(record)._words
        return words[record.at + 3], words[record.at + 4], words[record.at + 5]

    def parameters(self, record: Record) -> Iterator[int]:
        """The types of a function's parameters; 0 at the end for `...`."""
        return (words[1] for words in self._elements(record))

    def string(self, offset: int) -> str:
        """The string at an offset; raises `DamagedInput` if there is none."""
        if offset < self._first_string and self.base is not None:
            return self.base.string(offset)
        start = offset - self._first_string
        end = self._strings.find(b"\0", start, start + MOST_NAME)
        if end < 0:
            raise DamagedInput(f"BTF: there is no string at {offset:#x}")
        return self._strings[start:end].decode("utf-8", "replace")

    @property
    def string_end(self) -> int:
        """Where the strings of what is split over this one begin."""
        return self._first_string + len(self._strings)

    # --- inside ----------------------------------------------------------------------------------------------------

    @cached_property
    def _words(self) -> "array[int]":
        words = array("I")
        words.frombytes(self._types)
        if (sys.byteorder == "little") is not (self._order == "<"):
            words.byteswap()
        return words

    @cached_property
    def _index(self) -> "array[int]":
        """The first word of each type."""
        words, sizes = self._words, _Sizes()
        index = array("I")
        add = index.append
        position, end = 0, len(words)
        try:
            while position < end:
                add(position)
                position += sizes[words[position + 1]]
        except IndexError:
            position = end + 1
        if position != end:
            raise DamagedInput("BTF: its last type ends outside of the section of types")
        return index

    def _record_at(self, at: int, type_id: int) -> Record:
        name, info, last = self._words[at : at + 3]
        return Record(type_id, name, info >> 24 & 0x1F, info & 0xFFFF, bool(info & KIND_FLAG), last, at)

    def _owner(self, record: Record) -> "BtfTypes":
        if record.id < self._first_id and self.base is not None:
            return self.base._owner(record)
        return self

    def _elements(self, record: Record) -> "Iterator[array[int]]":
        words, size = self._owner(record)._words, EACH[record.kind]
        start = record.at + 3
        return (words[position : position + size] for position in range(start, start + size * record.vlen, size))

    def _first(self, name: str, kinds: tuple[int, ...]) -> Record | None:
        key = name, kinds
        if key not in self._known:
            plain, _, number = name.partition("#")
            named = self._named(plain, kinds)
            self._known[key] = next((one for one in named if not number or str(one.id) == number), None)
        return self._known[key]

    def _named(self, name: str, kinds: tuple[int, ...]) -> Iterator[Record]:
        """Types of this name and one of these kinds; a module's own come before its base's."""
        for offset in self._string_offsets(name):
            wanted = struct.pack(f"{self._order}I", offset)
            position = self._types.find(wanted)
            while position >= 0:
                at = position >> 2
                if not position & 3 and at + 1 < len(self._words) and self._words[at + 1] >> 24 & 0x1F in kinds:
                    # So far these may be any three words; the index knows where types begin.
                    place = bisect.bisect_left(self._index, at)
                    if place < len(self._index) and self._index[place] == at:
                        yield self._record_at(at, self._first_id + place)
                position = self._types.find(wanted, position + 1)
        if self.base is not None:
            yield from self.base._named(name, kinds)

    def _string_offsets(self, name: str) -> Iterator[int]:
        """Where a name stands among the strings, those of the base included.

        Most often once: but only what deduplicates BTF sees to that, and nothing asks for it.
        """
        # In split BTF the first string has no other before it.
        if self._first_string and self._strings.startswith(name.encode() + b"\0"):
            yield self._first_string
        needle = b"\0" + name.encode() + b"\0"
        position = self._strings.find(needle) if name and "\0" not in name else -1
        while position >= 0:
            yield self._first_string + position + 1
            position = self._strings.find(needle, position + 1)
        if self.base is not None:
            yield from self.base._string_offsets(name)

    def _members(self, record: Record) -> Iterator[tuple[Member, int]]:
        """Each member with the id of its type."""
        for name, type_id, offset in self._elements(record):
            bits, is_bitfield = self.bits(type_id), False
            if record.flag:
                # With the kind flag the offset's upper byte is the size of a bit-field.
                if offset >> 24:
                    bits, is_bitfield = offset >> 24, True
                offset &= 0xFFFFFF  # noqa: PLW2901
            else:
                # Without it, as pahole wrote it before v1.13, the int that a bit-field is made of tells.
                target = self.resolve(type_id)
                if target is not None and target.kind == INT:
                    encoding = self._owner(target)._words[target.at + 3]
                    if encoding & 0xFF != bits or encoding >> 16 & 0xFF:
                        bits, is_bitfield = encoding & 0xFF, True
                        offset += encoding >> 16 & 0xFF  # noqa: PLW2901
            yield Member(self.string(name), offset, bits, Spelling(self).of(type_id), is_bitfield), type_id

    def _find(self, record: Record, name: str, seen: set[int], depth: int = 0) -> tuple[Member, int] | None:
        """The member of this name, directly or in an anonymous member; its offset is from the start of `record`."""
        if depth > DEEPEST:
            raise DamagedInput("BTF: anonymous structs are nested without end")
        seen.add(record.id)
        for words in self._elements(record):
            own = self.string(words[0])
            if own == name:
                return next((member, type_id) for member, type_id in self._members(record) if member.name == name)
            if own:
                continue
            inner = self.resolve(words[1])
            if inner is None or inner.kind not in (STRUCT, UNION) or inner.id in seen:
                continue
            found = self._find(inner, name, seen, depth + 1)
            if found is not None:
                start = words[2] & 0xFFFFFF if record.flag else words[2]
                member, type_id = found
                return msgspec.structs.replace(member, bit_offset=start + member.bit_offset), type_id
        return None
