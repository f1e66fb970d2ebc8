# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects in the machine's memory, laid out by the kernel's types, or by a layout given explicitly.

device.vdev.index = 3       a scalar or pointer member is read and written as a number
device.vdev                 a struct member is an object of its own, standing at its address
device.vdev.vqs.append(q.list)
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ejectable.errors import DamagedInput
from ejectable.kernel.program import Member, Struct

if TYPE_CHECKING:
    from ejectable.kernel.machine.core import Machine

__all__ = ["Layouts", "Object"]

AGGREGATE = re.compile(r"(?:const |volatile )*(?:struct|union)\b[^*(]*$|.*\]$")
MASK = (1 << 64) - 1


class Layouts:
    """Types written down or inferred: {"virtqueue": (size, {"list": (offset, size), "vdev": (32, 8)})}."""

    source: Literal["btf", "dwarf"] = "btf"

    def __init__(self, layouts: Mapping[str, tuple[int, Mapping[str, tuple[int, int]]]]) -> None:
        self._layouts = layouts

    def struct(self, name: str) -> Struct | None:
        """As `Types.struct`."""
        if name not in self._layouts:
            return None
        size, members = self._layouts[name]
        return Struct(name, size, tuple(self._member(path, *place) for path, place in members.items()))

    def member(self, struct: str, path: str) -> Member | None:
        """As `Types.member`; paths are the ones that were written down, and what they are inside of."""
        members = self._layouts.get(struct, (0, {}))[1]
        if path in members:
            return self._member(path, *members[path])
        inside = [place for found, place in members.items() if found.startswith(path + ".")]
        if not inside:
            return None
        start = min(offset for offset, _ in inside)
        end = max(offset + size for offset, size in inside)
        return Member(path.rpartition(".")[2], 8 * start, 8 * (end - start), "struct")

    def homonyms(self, name: str, having: Sequence[str] = ()) -> tuple[str, ...]:
        """As `Types.homonyms`: there is one at most."""
        return (name,) if name in self._layouts and all(self.member(name, path) for path in having) else ()

    def enum(self, name: str) -> dict[str, int] | None:  # noqa: ARG002  (the protocol's)
        """No enumerators are written down."""
        return None

    @staticmethod
    def _member(path: str, offset: int, size: int) -> Member:
        kind = "unsigned long" if size in (1, 2, 4, 8) else "struct"
        return Member(path.rpartition(".")[2], 8 * offset, 8 * size, kind)


class Object:
    """A struct in the machine's memory, or a struct inside of one. `path` is the way from the outermost type."""

    __slots__ = ("_address", "_machine", "_path", "_struct")
    _address: int
    _machine: "Machine"
    _path: str
    _struct: str

    def __init__(self, machine: "Machine", struct: str, address: int, path: str = "") -> None:
        for name, value in (("_machine", machine), ("_struct", struct), ("_address", address), ("_path", path)):
            object.__setattr__(self, name, value)

    def __index__(self) -> int:
        """The object's address: what a pointer to it holds."""
        return self._address

    def __repr__(self) -> str:
        return f"<{self._struct}{'.' if self._path else ''}{self._path} at {self._address:#x}>"

    def __getattr__(self, name: str) -> "int | Object":
        member, address = self._find(name)
        if AGGREGATE.match(member.type_name) or member.size not in (1, 2, 4, 8):
            return Object(self._machine, self._struct, address, self._at(name))
        value = int.from_bytes(self._machine.memory.read(address, member.size), "little")
        if member.is_bitfield:
            value = value >> member.bit_offset % 8 & (1 << member.bit_size) - 1
        return value

    def __setattr__(self, name: str, value: "int | Object") -> None:
        member, address = self._find(name)
        number = value.__index__()
        if member.size not in (1, 2, 4, 8):
            raise DamagedInput(f"{self._struct}.{self._at(name)} is no number or pointer")
        if member.is_bitfield:
            old = int.from_bytes(self._machine.memory.read(address, member.size), "little")
            shift, mask = member.bit_offset % 8, (1 << member.bit_size) - 1
            number = old & ~(mask << shift) | (number & mask) << shift
        number &= (1 << 8 * member.size) - 1
        self._machine.memory.write(address, number.to_bytes(member.size, "little"))

    def sub(self, path: str) -> "Object":
        """The member at a dotted path as an object, whatever its type: `int(o.sub("vdev"))` is its address."""
        found: Object = self
        for name in path.split("."):
            _, address = found._find(name)
            found = Object(self._machine, self._struct, address, found._at(name))
        return found

    def has(self, path: str) -> bool:
        """Whether the type has this member."""
        return self._machine.types.member(self._struct, self._at(path)) is not None

    def set(self, **members: "int | Object") -> "Object":
        """Write several members; gives the object itself."""
        for name, value in members.items():
            setattr(self, name, value)
        return self

    def _at(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _find(self, name: str) -> tuple[Member, int]:
        types = self._machine.types
        member = types.member(self._struct, self._at(name))
        if member is None:
            raise AttributeError(f"struct {self._struct} has no member {self._at(name)}")
        start = types.member(self._struct, self._path) if self._path else None
        return member, self._address + member.offset - (start.offset if start else 0)

    # struct list_head { next, prev }: include/linux/types.h

    def init(self) -> None:
        """Make this list head an empty list."""
        self._machine.memory.write(self._address, self._address.to_bytes(8, "little") * 2)

    def append(self, entry: "Object | int") -> None:
        """Link `entry`, a list head inside of another object, in at the end of the list that this is the head of.

        A head that is all zero becomes an empty list first.
        """
        memory = self._machine.memory
        if memory.word(self._address) == 0:
            self.init()
        new, last = entry.__index__(), memory.word(self._address + 8)
        for place, value in ((new, self._address), (new + 8, last), (last, new), (self._address + 8, new)):
            memory.write(place, value.to_bytes(8, "little"))

    def entries(self, most: int = 1024) -> Iterable[int]:
        """Addresses of the list heads on this list."""
        position = self._machine.memory.word(self._address)
        while position not in (self._address, 0) and most:
            yield position
            position, most = self._machine.memory.word(position), most - 1
