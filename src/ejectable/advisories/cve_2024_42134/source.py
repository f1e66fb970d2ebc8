# SPDX-License-Identifier: GPL-2.0-or-later
"""The source of a kernel: is the callback there, is it called for every queue, and behind which condition?

Read as C, not as lines: comments, line breaks, and the order of a comparison do not matter. What this cannot decide
it says; it never guesses.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ejectable.kernel.expressions import Expression, Fact, canonical, inner
from ejectable.kernel.paths import Place, find
from ejectable.kernel.source import CSource, Function, read_source
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["CALLBACK", "COMMON", "FILES", "FOLDER", "Call", "Reading", "judge", "read", "source"]

FOLDER = "drivers/virtio"
CALLBACK = "is_avq"
COMMON = "virtio_pci_common.c"
FILES = (COMMON, "virtio_pci_common.h", "virtio_pci_legacy.c")
MOST_CALLS = 64  # the kernel has one
POINTER_IS_SET = "the pointer is set"
# What no legacy device has: VIRTIO_F_ADMIN_VQ and VIRTIO_F_VERSION_1, include/uapi/linux/virtio_config.h.
FEATURE = re.compile(r"virtio_has_feature\(.+,(?:VIRTIO_F_ADMIN_VQ|VIRTIO_F_VERSION_1|41|32)\)")


class Call(msgspec.Struct, frozen=True):
    """A call of the member in a function; token indices are those of the function's body."""

    function: Function
    place: Place | None  # None: the code around it was not understood
    node: Expression | None = None  # the call itself, from the object to the closing parenthesis
    pointer: str = ""  # `vp_dev->is_avq`, in canonical spelling

    @property
    def guard(self) -> str | None:
        """What keeps a legacy device away from it; `None` if nothing does."""
        owner = re.sub(rf"(->|\.){CALLBACK}$", "", self.pointer)
        return next(filter(None, (_tells(fact, owner) for fact in self._facts)), None)

    @property
    def doubt(self) -> str | None:
        """Why the facts cannot be taken at their word; `None` if they can."""
        if self.place is None:
            return "its code was not understood"
        tests = [
            fact.says
            for fact in self._facts
            if re.fullmatch(rf"[\w.>()\[\]-]+\b{CALLBACK if fact.true else 'is_legacy'}", fact.says)
        ]
        if tests and self.guard is None:
            return f"{tests[0]} is tested, which may be another device's"
        return None

    @property
    def _facts(self) -> tuple[Fact, ...]:
        return self.place.facts if self.place else ()


class Reading(msgspec.Struct, frozen=True):
    """What a tree's driver says, and where."""

    status: Status
    detail: str
    common: CSource
    calls: tuple[Call, ...] = ()

    @property
    def open(self) -> tuple[Call, ...]:
        """The calls that a legacy device reaches."""
        return tuple(call for call in self.calls if call.guard is None and call.doubt is None)


def source(tree: Path) -> Evidence | None:
    """What the tree's drivers/virtio says; `None` where there is none."""
    found = read(tree)
    return None if found is None else Evidence(EvidenceKind.SOURCE, found.status, f"{FOLDER}/{COMMON}: {found.detail}")


def read(tree: Path) -> Reading | None:
    """The driver of a tree, read; `None` where there is none. Raises `BadInput` for what is no source."""
    common, header, legacy = (read_source(tree / FOLDER / name) for name in FILES)
    return None if common is None or header is None else judge(common, header, legacy)


def judge(common: CSource, header: CSource, legacy: CSource | None) -> Reading:
    """The same, for files that were read already."""
    members = header.struct("virtio_pci_device")
    delete = common.function("vp_del_vqs")
    if members is None or delete is None:
        detail = "struct virtio_pci_device or vp_del_vqs() was not found where they belong"
        return Reading(Status.UNKNOWN, detail, common)
    has_member = CALLBACK in members
    calls = tuple(_calls(common, delete))
    if not calls:
        if not has_member:
            other = _asks(members)
            if other:
                detail = f"struct virtio_pci_device has no member is_avq, but {other}, which asks the same"
                return Reading(Status.UNKNOWN, detail, common)
            detail = "struct virtio_pci_device has no member is_avq, and vp_del_vqs() calls none"
            return Reading(Status.NOT_AFFECTED, detail, common)
        return Reading(
            Status.UNKNOWN, "the member is_avq is there, but no call of it was found in vp_del_vqs()", common
        )
    if not has_member:
        detail = "vp_del_vqs() calls is_avq, which is no member of struct virtio_pci_device"
        return Reading(Status.UNKNOWN, detail, common, calls)
    setter = _setter(common, legacy)
    if setter:
        return Reading(Status.FIXED, f"{setter}() sets is_avq for every legacy device", common, calls)
    return _weigh(common, header, legacy, calls)


def _asks(members: Sequence[str]) -> str | None:
    """The member with the signature of is_avq, `bool (*x)(struct virtio_device *, unsigned int)`, if one has it."""
    found = re.search(r"bool \( \* (\w+) \) \( struct virtio_device \*", " ".join(members))
    return found[1] if found else None


def _is_called(tokens: Sequence[str]) -> bool:
    """Whether the member is called anywhere in these tokens: in a function that vp_del_vqs() may come to."""
    named = (i for i in range(1, len(tokens)) if tokens[i] == CALLBACK and tokens[i - 1] in ("->", "."))
    return any(next((word for word in tokens[i + 1 : i + 8] if word != ")"), "") == "(" for i in named)


def _weigh(common: CSource, header: CSource, legacy: CSource | None, calls: tuple[Call, ...]) -> Reading:
    found = Reading(Status.FIXED, "", common, calls)
    chosen = [call.function.name for call in calls if common.chosen(call.function)]
    if found.open:
        name = found.open[0].function.name
        detail = f"{name}() calls is_avq without a test, and only the modern probe sets it"
        status = Status.UNKNOWN if name in chosen else Status.AFFECTED
        detail += "; but #if chooses among parts of that function" if name in chosen else ""
        return Reading(status, detail, common, calls)
    doubts = [f"{call.function.name}() calls is_avq, and {call.doubt}" for call in calls if call.doubt]
    doubts += [
        f"{name} calls is_avq too" for name, file in (("virtio_pci_legacy.c", legacy), ("the header", header))
        if file is not None and _is_called(file.tokens)
    ]  # fmt: skip
    doubts += [f"#if chooses among parts of {name}(), which calls is_avq" for name in chosen]
    if doubts:
        return Reading(Status.UNKNOWN, doubts[0], common, calls)
    detail = f"{calls[0].function.name}() calls is_avq only if {calls[0].guard}"
    return Reading(Status.FIXED, detail, common, calls)


def _calls(common: CSource, delete: Function) -> Iterator[Call]:
    """Calls of the member: in vp_del_vqs(), and in functions of the same file that are called on from there."""
    count = 0
    left = {function.name: function for function in common.functions()}
    reached = [left.pop(delete.name)]
    for function in reached:
        reached += [left.pop(name) for name in dict.fromkeys(function.body) if name in left]
    for function in reached:
        body = function.body
        for index in range(1, len(body)):
            if body[index] != CALLBACK or body[index - 1] not in ("->", "."):
                continue
            behind = index + 1
            while behind < len(body) and body[behind] == ")":
                behind += 1
            if behind == len(body) or body[behind] != "(":  # named, but not called
                continue
            count += 1
            if count > MOST_CALLS:
                yield Call(function, None)
                return
            place = find(body, index)
            if place is None:
                yield Call(function, None)
            elif (found := _call_of(place, index)) is not None:
                node, member = found
                yield Call(function, place, node, canonical(body, member))


def _call_of(place: Place, index: int) -> tuple[Expression, Expression] | None:
    """The call whose function is the member named at `index`, as `x->m(...)` or `(*x->m)(...)`, and that member."""
    for node in place.chain:
        if node.kind == "call":
            called = inner(node.parts[0])
            if called.kind == "unary":
                called = inner(called.parts[0])
            if called.kind == "member" and called.end == index + 1:
                return node, called
    return None


def _setter(common: CSource, legacy: CSource | None) -> str | None:
    """The function that gives the member a value for every device that is driven as legacy, where one does."""
    probe = legacy.function("virtio_pci_legacy_probe") if legacy else None
    if probe and not (legacy and legacy.chosen(probe)) and _sets(probe, len(probe.body)):
        return probe.name
    probe = common.function("virtio_pci_probe")
    if probe and not common.chosen(probe):
        drivers = [i for i, word in enumerate(probe.body) if re.fullmatch(r"virtio_pci_(legacy|modern)_probe", word)]
        if drivers and _sets(probe, drivers[0]):
            return probe.name
    return None


def _sets(probe: Function, end: int) -> bool:
    """Whether the last assignment in front of `end` is of something that is not null, on every way to the end."""
    body = probe.body
    found = [i for i in range(1, end - 2) if body[i] == CALLBACK and body[i - 1] in ("->", ".") and body[i + 1] == "="]
    if not found:
        return False
    at = found[-1]
    if any(body[i : i + 2] == ("return", "0") for i in range(at)):
        return False  # some devices are done with before
    depth = sum((word == "{") - (word == "}") for word in body[:at])
    start = at
    while start and body[start - 1] not in (";", "{", "}"):
        start -= 1
    simple = body[start] not in ("if", "else", "for", "while", "do", "case", "default", "switch")
    return depth == 0 and simple and body[at + 2] not in ("NULL", "0", "(")


def _tells(fact: Fact, owner: str) -> str | None:
    """What of this fact is false for a legacy device; `None` if nothing is known to be."""
    if fact.true and fact.says in (f"{owner}->{CALLBACK}", f"{owner}.{CALLBACK}"):
        return POINTER_IS_SET
    if not fact.true and fact.says in (f"{owner}->is_legacy", f"{owner}.is_legacy"):
        return "the device is not legacy"
    if fact.true and FEATURE.fullmatch(fact.says):
        return "a feature is negotiated that no legacy device has"
    return None
