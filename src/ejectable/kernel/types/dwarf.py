# SPDX-License-Identifier: GPL-2.0-or-later
"""Types from DWARF, versions 4 and 5, for kernels and modules that have no BTF but were not stripped.

Debugging information is large and slow to read: a name is looked for in its bytes first, and only the units in
which it occurs are parsed. Layout: DWARF Debugging Information Format, version 5, chapters 2, 5 and 7.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.program import Member, Struct

__all__ = ["DwarfTypes", "load_dwarf"]

AGGREGATES = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union"}
QUALIFIERS = {
    "DW_TAG_const_type": "const",
    "DW_TAG_volatile_type": "volatile",
    "DW_TAG_restrict_type": "restrict",
    "DW_TAG_atomic_type": "_Atomic",
}
POINTER = 8
DEEPEST = 64
MOST_STEPS = 128
# A module has a unit or a dozen; a whole kernel has thousands, of which those that know a struct are read.
MOST_UNITS = 64
MOST_ENTRIES = 1 << 20
MOST_HITS = 4096
LARGEST = 1 << 30  # in bytes, of debugging information once it is unpacked; all of it is held in memory
SHF_COMPRESSED = 1 << 11
CH_SIZE = 8  # where struct elf64_chdr says how large a compressed section is


def load_dwarf(elf_bytes: bytes | memoryview) -> "DwarfTypes":
    """The types in the debugging information of an ELF file, relocatable or not; raises `BadInput` if it has none.

    Relocations are applied, compressed sections (.debug_info with SHF_COMPRESSED) unpacked.
    """
    # Refuses what is no 64-bit little-endian file for a machine that we know.
    _bounded(Elf(elf_bytes, name="the ELF file"))
    from elftools.elf.elffile import ELFFile

    info = _guarded(lambda: _dwarf_of(ELFFile(io.BytesIO(elf_bytes))))
    if info is None:
        raise BadInput("an ELF file without debugging information", hint="Kernels are built with CONFIG_DEBUG_INFO.")
    return DwarfTypes(info)


def _bounded(elf: Elf) -> None:
    """Refuse what would need too much memory, before the library unpacks it."""
    total = 0
    for section in elf.sections:
        if section.name.startswith(".zdebug"):
            raise BadInput("debugging information compressed in the way that binutils gave up in 2015 is not read")
        if section.name.startswith(".debug"):
            size = section.size
            if section.flags & SHF_COMPRESSED:
                size = int.from_bytes(elf.content(section)[CH_SIZE : CH_SIZE + 8], "little")
            total += size
    if total > LARGEST:
        raise BadInput(f"{total} bytes of debugging information are too many to be read")


def _dwarf_of(file: Any) -> Any:
    return file.get_dwarf_info() if file.has_dwarf_info(strict=True) else None


def _guarded(action: Any) -> Any:
    """Run `action`, and report whatever the library throws at damaged input as such."""
    try:
        return action()
    except (BadInput, MemoryError):
        raise
    except RecursionError as error:
        raise DamagedInput("DWARF: it leads in a circle") from error
    except Exception as error:  # the library raises what the first wrong byte makes it raise
        raise DamagedInput(f"DWARF: {type(error).__name__}: {error}") from error


class DwarfTypes:
    """The types of one ELF file. Methods raise `DamagedInput`."""

    source: Literal["btf", "dwarf"] = "dwarf"

    def __init__(self, info: Any) -> None:
        self._info = info
        self._known: dict[str, dict[str, Any]] = {}

    def struct(self, name: str) -> Struct | None:
        """The struct or union of this name (without the keyword), or `None`."""
        return _guarded(lambda: self._struct(name))  # type: ignore[no-any-return]

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a dotted path, through anonymous structs and unions, or `None`."""
        return _guarded(lambda: self._member(struct, path))  # type: ignore[no-any-return]

    def homonyms(self, name: str, having: Sequence[str] = ()) -> tuple[str, ...]:
        """As `Types.homonyms`; of several only the first is looked at."""
        return (name,) if self.struct(name) is not None and all(self.member(name, path) for path in having) else ()

    def enum(self, name: str) -> dict[str, int] | None:
        """The enumerators of the enum of this name, or `None`."""
        return _guarded(lambda: self._enum(name))  # type: ignore[no-any-return]

    def _struct(self, name: str) -> Struct | None:
        entry = self._named(name, *AGGREGATES)
        if entry is None:
            return None
        members = tuple(_describe(child) for child in _children(entry))
        kind: Literal["struct", "union"] = "struct" if entry.tag == "DW_TAG_structure_type" else "union"
        return Struct(name, _number(entry, "DW_AT_byte_size"), members, kind)

    def _member(self, struct: str, path: str) -> Member | None:
        entry = self._named(struct, *AGGREGATES)
        start = 0
        member = None
        for part in path.split("."):
            found = _find(entry, part, set()) if entry is not None else None
            if found is None:
                return None
            child, offset = found
            described = _describe(child)
            start += offset
            member = msgspec.structs.replace(described, bit_offset=start)
            target = _resolve(_type(child))
            entry = target if target is not None and target.tag in AGGREGATES else None
        return member

    def _enum(self, name: str) -> dict[str, int] | None:
        entry = self._named(name, "DW_TAG_enumeration_type")
        if entry is None:
            return None
        return {_name(child): _number(child, "DW_AT_const_value") for child in _children(entry, "DW_TAG_enumerator")}

    def _named(self, name: str, *tags: str) -> Any:
        """The first complete definition of a type."""
        key = tags[0]
        if name not in self._known.setdefault(key, {}):
            self._known[key][name] = next(self._definitions(name, tags), None)
        return self._known[key][name]

    def _definitions(self, name: str, tags: tuple[str, ...]) -> Iterator[Any]:
        for unit in self._units_with(name.encode()):
            for count, entry in enumerate(unit.iter_DIEs()):
                if count > MOST_ENTRIES:
                    break
                if entry.tag in tags and _name(entry) == name and "DW_AT_declaration" not in entry.attributes:
                    yield entry

    def _units_with(self, name: bytes) -> Iterator[Any]:
        """The units that mention a name: in line, or by its place in .debug_str."""
        body = self._info.debug_info_sec.stream.getvalue()
        strings = self._info.debug_str_sec.stream.getvalue() if self._info.debug_str_sec else b""
        needles = [name + b"\0"]
        position = 0 if strings.startswith(name + b"\0") else strings.find(b"\0" + name + b"\0") + 1
        if position or strings.startswith(name + b"\0"):
            needles.append(struct.pack("<I", position))
        seen: set[int] = set()
        for needle in needles:
            hit = body.find(needle)
            for _ in range(MOST_HITS):
                if hit < 0 or len(seen) >= MOST_UNITS:
                    break
                unit = self._info.get_CU_containing(hit)
                if unit.cu_offset not in seen:
                    seen.add(unit.cu_offset)
                    yield unit
                hit = body.find(needle, unit.cu_offset + unit["unit_length"] + 4)
        if self._info.debug_str_offsets_sec is not None:
            # Clang's DWARF 5 names strings by number: the unit's own table would have to be read to know which.
            for number, unit in enumerate(self._info.iter_CUs()):
                if number >= MOST_UNITS:
                    return
                if unit.cu_offset not in seen:
                    yield unit


# --- entries -------------------------------------------------------------------------------------------------------


def _name(entry: Any) -> str:
    attribute = entry.attributes.get("DW_AT_name")
    if attribute is None:
        return ""
    return attribute.value.decode("utf-8", "replace") if isinstance(attribute.value, bytes) else ""


def _number(entry: Any, attribute: str, default: int = 0) -> int:
    found = entry.attributes.get(attribute)
    return found.value if found is not None and isinstance(found.value, int) else default


def _type(entry: Any) -> Any:
    """The entry of its type; `None` for void."""
    return entry.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in entry.attributes else None


def _resolve(entry: Any) -> Any:
    """The type behind typedefs and qualifiers."""
    for _ in range(DEEPEST):
        if entry is None or (entry.tag != "DW_TAG_typedef" and entry.tag not in QUALIFIERS):
            return entry
        entry = _type(entry)
    raise DamagedInput("DWARF: a type leads in a circle")


def _children(entry: Any, tag: str = "DW_TAG_member") -> Iterator[Any]:
    return (child for child in entry.iter_children() if child.tag == tag)


def _bits(entry: Any) -> int:
    """The size of a type in bits; 0 for what has none."""
    factor = 8
    for _ in range(DEEPEST):
        entry = _resolve(entry)
        if entry is None or entry.tag == "DW_TAG_subroutine_type":
            return 0
        if entry.tag != "DW_TAG_array_type":
            default = POINTER if entry.tag == "DW_TAG_pointer_type" else 0
            return factor * _number(entry, "DW_AT_byte_size", default)
        for count in _dimensions(entry):
            factor *= count
        entry = _type(entry)
    raise DamagedInput("DWARF: an array leads in a circle")


def _dimensions(entry: Any) -> list[int]:
    """The lengths of an array; 0 where none is given."""
    return [
        _number(child, "DW_AT_count", _number(child, "DW_AT_upper_bound", -1) + 1)
        for child in _children(entry, "DW_TAG_subrange_type")
    ]


def _describe(entry: Any) -> Member:
    kind = _type(entry)
    offset, is_bitfield = _offset(entry)
    bits = _number(entry, "DW_AT_bit_size") if is_bitfield else _bits(kind)
    return Member(_name(entry), offset, bits, _Spelling().of(kind), is_bitfield)


def _offset(entry: Any) -> tuple[int, bool]:
    """Where a member begins, in bits, and whether it is a bit-field."""
    is_bitfield = "DW_AT_bit_size" in entry.attributes
    if "DW_AT_data_bit_offset" in entry.attributes:  # DWARF 4 and 5
        return _number(entry, "DW_AT_data_bit_offset"), is_bitfield
    offset = 8 * _number(entry, "DW_AT_data_member_location")
    if is_bitfield and "DW_AT_bit_offset" in entry.attributes:
        # DWARF 2 and 3: counted from the most significant bit of the storage unit.
        storage = 8 * _number(entry, "DW_AT_byte_size", _bits(_type(entry)) // 8)
        offset += storage - _number(entry, "DW_AT_bit_offset") - _number(entry, "DW_AT_bit_size")
    return offset, is_bitfield


def _find(entry: Any, name: str, seen: set[int]) -> tuple[Any, int] | None:
    """The member of this name, directly or in an anonymous one, and its offset in bits from the start of `entry`."""
    seen.add(entry.offset)
    for child in _children(entry):
        own = _name(child)
        if own == name:
            return child, _offset(child)[0]
        if own:
            continue
        inner = _resolve(_type(child))
        if inner is None or inner.tag not in AGGREGATES or inner.offset in seen or len(seen) > MOST_STEPS:
            continue
        found = _find(inner, name, seen)
        if found is not None:
            return found[0], found[1] + _offset(child)[0]
    return None


class _Spelling:
    """Spells one type as C does, within a number of steps."""

    def __init__(self) -> None:
        self._steps = MOST_STEPS

    def of(self, entry: Any, inner: str = "") -> str:
        self._steps -= 1
        if self._steps < 0:
            return _join("...", inner)
        if entry is None:
            return _join("void", inner)
        target = _type(entry)
        if entry.tag in QUALIFIERS:
            qualifier = QUALIFIERS[entry.tag]
            if target is not None and target.tag == "DW_TAG_pointer_type":
                return self.of(target, _join(qualifier, inner))
            return f"{qualifier} {self.of(target, inner)}"
        if entry.tag == "DW_TAG_pointer_type":
            wrapped = target is not None and target.tag in ("DW_TAG_array_type", "DW_TAG_subroutine_type")
            return self.of(target, f"(*{inner})" if wrapped else f"*{inner}")
        if entry.tag == "DW_TAG_array_type":
            return self.of(target, inner + "".join(f"[{count or ''}]" for count in _dimensions(entry)))
        if entry.tag == "DW_TAG_subroutine_type":
            return self.of(target, f"{inner}({self._parameters(entry)})")
        keyword = AGGREGATES.get(entry.tag, "enum" if entry.tag == "DW_TAG_enumeration_type" else "")
        return _join(f"{keyword} {_name(entry) or '{...}'}".strip(), inner)

    def _parameters(self, entry: Any) -> str:
        spelled = []
        for child in entry.iter_children():
            if child.tag == "DW_TAG_formal_parameter":
                spelled.append(self.of(_type(child)))
            elif child.tag == "DW_TAG_unspecified_parameters":
                spelled.append("...")
            if len(spelled) > MOST_STEPS:
                break
        return ", ".join(spelled) or "void"


def _join(name: str, inner: str) -> str:
    return f"{name} {inner}" if inner and not inner.startswith("[") else name + inner
