# SPDX-License-Identifier: GPL-2.0-or-later
"""How a defect is repaired in a kernel that runs, as data: a function, what must hold of its argument, what is done.

    LivePart(
        advisory="CVE-2026-53297", function="mana_remove", module="mana",
        ours=(Is("+gdma_dev.gdma_context", 0),), ...
        action=Return(0),
    )

A place is a way from the function's first argument, in words: `+struct.member` adds the member's offset,
`-struct.member` subtracts it (from a member to what it is in), `>` follows the pointer that stands there. What stands
at the end is meant, or its address where the place begins with `&`. `resolve` turns names into offsets by one kernel's
own types; the C side (remedies/live/module) knows offsets alone.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from ejectable.errors import Missing
from ejectable.kernel import Types
from ejectable.kernel.program import Member

__all__ = [
    "Action",
    "Condition",
    "Differs",
    "Fill",
    "Is",
    "IsNot",
    "LivePart",
    "Measured",
    "Order",
    "Reads",
    "Resolved",
    "Return",
    "Same",
    "Starts",
    "measure",
    "resolve",
]

MOST_HOPS = 6  # MOST_HOPS of witness.h
POINTER = 8
EVERY_BIT = (1 << 64) - 1


class Is(msgspec.Struct, frozen=True):
    """What stands there, under the mask, is this number."""

    place: str
    value: int
    mask: int = EVERY_BIT


class IsNot(msgspec.Struct, frozen=True):
    """What stands there, under the mask, is another number."""

    place: str
    value: int
    mask: int = EVERY_BIT


class Same(msgspec.Struct, frozen=True):
    """Two places hold the same."""

    place: str
    other: str


class Differs(msgspec.Struct, frozen=True):
    """Two places hold different things."""

    place: str
    other: str


class Starts(msgspec.Struct, frozen=True):
    """The start of the function of this name (empty: of any); with `or_empty` also nothing, or what `Fill` puts."""

    place: str
    function: str
    or_empty: bool = False


class Reads(msgspec.Struct, frozen=True):
    """A pointer to this text, of at most 31 characters."""

    place: str
    text: str


Condition = Is | IsNot | Same | Differs | Starts | Reads


class Fill(msgspec.Struct, frozen=True):
    """Put a function that answers `answer` into an empty pointer at the entry, and take it away at the end.

    `type` and `parameters` are those of the member, to the letter (kCFI compares them).
    """

    place: str
    type: str
    parameters: str
    answer: int


class Return(msgspec.Struct, frozen=True):
    """Do not run the function: its caller gets `value`, which means nothing where the function has no value (skip)."""

    value: int


class Order(msgspec.Struct, frozen=True):
    """Put each record of a table where it is looked for.

    `head` is a list's head; what is on it has its node at `node` and its place in the table at `index`. `table` is the
    pointer to the table of pointers to records, and `key` the record's pointer to what it belongs to.
    """

    head: str
    node: str
    index: str
    table: str
    key: str


Action = Fill | Return | Order


class LivePart(msgspec.Struct, frozen=True):
    """One repair. The four kinds of conditions are explained in witness.h."""

    advisory: str
    function: str
    module: str  # that the function is in, where it is not built in
    does: str  # what is said each time that it acted
    danger: str  # what is said when it is unloaded
    ours: tuple[Condition, ...]
    layout: tuple[Condition, ...]
    defect: tuple[Condition, ...]
    action: Action
    sure: tuple[Condition, ...] = ()
    bus: str | None = None  # of the devices that are looked at when it is loaded: "pci", or one below it
    device: str | None = None  # the struct device in the argument: "virtio_device.dev"
    headers: tuple[str, ...] = ()  # of the kernel, that `Fill.parameters` needs


class Resolved(msgspec.Struct, frozen=True):
    """A repair with the offsets of one kernel: the lines of the C header, and a value for all of them."""

    part: LivePart
    lines: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change with any of it."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]


class Members(Protocol):
    """What is asked of a kernel's types."""

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a dotted path, or `None`."""


class Measured(msgspec.Struct, frozen=True):
    """The members that a repair needs, `struct.member` → offset and size in bytes: numbers, whoever read the types."""

    members: dict[str, tuple[int, int]]

    def member(self, struct: str, path: str) -> Member | None:
        """The member at a dotted path, or `None`."""
        found = self.members.get(f"{struct}.{path}")
        return None if found is None else Member(path, 8 * found[0], 8 * found[1], "")


def measure(part: LivePart, types: Types) -> Measured:
    """The members that this repair needs of a kernel with these types; raises as `resolve`."""
    measured = Measured({})

    class Asked:
        @staticmethod
        def member(struct: str, path: str) -> Member | None:
            found = types.member(struct, path)
            if found is not None and not found.is_bitfield:
                measured.members[f"{struct}.{path}"] = (found.offset, found.size)
            return found

    resolve(part, Asked())
    return measured


def resolve(part: LivePart, types: Members) -> Resolved:
    """The repair for a kernel with these types; raises `Missing` where they do not have a member."""
    return Resolved(part, tuple(_lines(part, types)))


def _lines(part: LivePart, types: Members) -> Iterator[str]:
    yield from (f"#include <{header}>" for header in part.headers)
    words = {"ADVISORY": part.advisory, "FUNCTION": part.function, "DRIVER": part.module}
    for name, text in {**words, "DOES": part.does, "DANGER": part.danger}.items():
        yield f'#define EJECTABLE_{name} "{text}"'
    for name in ("ours", "layout", "defect", "sure"):
        conditions: Iterable[Condition] = getattr(part, name)
        yield f"#define EJECTABLE_{name.upper()} {', '.join(_condition(one, types) for one in conditions)}"
    if part.bus is not None and part.device is not None:
        yield f'#define EJECTABLE_BUS "{part.bus}"'
        yield f"#define EJECTABLE_DEVICE_OFFSET {_member(part.device, types)[0]}"
    yield from _action(part.action, types)


def _action(action: Action, types: Members) -> Iterator[str]:
    match action:
        case Fill():
            yield f"#define EJECTABLE_FILL {_place(action.place, types)}"
            yield f"#define EJECTABLE_ANSWER_TYPE {action.type}"
            yield f"#define EJECTABLE_ANSWER_ARGUMENTS {action.parameters}"
            yield f"#define EJECTABLE_ANSWER {action.answer}"
        case Return():
            yield f"#define EJECTABLE_RETURN {action.value}"
        case Order():
            offsets = ", ".join(str(_member(name, types)[0]) for name in (action.node, action.index, action.key))
            head, table = _place(f"& {action.head}", types), _place(action.table, types)
            yield f"#define EJECTABLE_TABLE {{ {head}, {table}, {offsets} }}"


def _condition(condition: Condition, types: Members) -> str:
    place = f".place = {_place(condition.place, types)}"
    match condition:
        case Is() | IsNot():
            test = "IS" if isinstance(condition, Is) else "IS_NOT"
            more = f".mask = {condition.mask:#x}ULL, .value = {condition.value:#x}ULL"
        case Same() | Differs():
            test = "SAME" if isinstance(condition, Same) else "DIFFERS"
            more = f".other = {_place(condition.other, types)}"
        case Starts():
            test = "STARTS_OR_EMPTY" if condition.or_empty else "STARTS"
            more = f'.text = "{condition.function}"'
        case _:
            test, more = "READS", f'.text = "{condition.text}"'
    return f"{{ {test}, {place}, {more} }}"


def _place(place: str, types: Members) -> str:
    """A struct place of witness.h."""
    offsets, size = [0], POINTER  # the argument itself is a pointer, though none that stands anywhere
    words = place.split()
    address = words[0] == "&"
    for word in words[address:]:
        if word == ">":
            if size != POINTER:
                raise Missing(f"{place!r}: what stands there is no pointer by the kernel's types.")
            offsets.append(0)
        else:
            offset, size = _member(word[1:], types)
            offsets[-1] += offset if word[0] == "+" else -offset
    if len(offsets) > MOST_HOPS:
        raise Missing(f"{place!r} follows more pointers than {MOST_HOPS}.")
    if not address and size not in (1, 2, 4, 8):
        raise Missing(f"{place!r} has {size} bytes by the kernel's types: that is no number and no pointer.")
    return f"{{ {0 if address else size}, {len(offsets)}, {{ {', '.join(map(str, offsets))} }} }}"


def _member(name: str, types: Members) -> tuple[int, int]:
    """Offset and size of `struct.member`, in bytes."""
    struct, _, path = name.partition(".")
    member = types.member(struct, path)
    if member is None or member.is_bitfield:
        raise Missing(f"The kernel's types have no {struct}.{path}.", hint="The layout must be known exactly.")
    return member.offset, member.size
