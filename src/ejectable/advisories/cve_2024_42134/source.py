# SPDX-License-Identifier: GPL-2.0-or-later
"""The source of a kernel: is the callback there, is it called for every queue, and behind which condition?

Read as C, not as lines: comments, line breaks, and the order of a comparison do not matter. What this cannot decide
it says; it never guesses.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ejectable.kernel.source import CSource, Function, matching, read_source
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["source"]

FOLDER = "drivers/virtio"
CALLBACK = "is_avq"
FILES = ("virtio_pci_common.c", "virtio_pci_common.h", "virtio_pci_legacy.c", "virtio_pci_modern.c")


def source(tree: Path) -> Evidence | None:
    """What the tree's drivers/virtio says; `None` where there is none."""
    files = {name: read_source(tree / FOLDER / name) for name in FILES}
    common, header = files["virtio_pci_common.c"], files["virtio_pci_common.h"]
    if common is None or header is None:
        return None
    members = header.struct("virtio_pci_device")
    delete = common.function("vp_del_vqs")
    if members is None or delete is None:
        return _says(Status.UNKNOWN, "struct virtio_pci_device or vp_del_vqs() was not found where they belong")
    has_member = CALLBACK in members
    call = _calls(common, delete)
    if not call:
        if not has_member:
            return _says(
                Status.NOT_AFFECTED, "struct virtio_pci_device has no member is_avq, and vp_del_vqs() calls none"
            )
        return _says(Status.UNKNOWN, "the member is_avq is there, but no call of it was found in vp_del_vqs()")
    if not has_member:
        return _says(Status.UNKNOWN, "vp_del_vqs() calls is_avq, which is no member of struct virtio_pci_device")
    legacy = files["virtio_pci_legacy.c"]
    if legacy is not None and _sets(legacy):
        return _says(Status.FIXED, "virtio_pci_legacy_probe() sets is_avq")
    verdicts = [(_guard(function, index), function.name) for function, index in call]
    open_calls = [name for guard, name in verdicts if guard is None]
    if open_calls:
        return _says(
            Status.AFFECTED, f"{open_calls[0]}() calls is_avq without a test, and only the modern probe sets it"
        )
    return _says(Status.FIXED, f"{verdicts[0][1]}() calls is_avq only if {verdicts[0][0]}")


def _says(status: Status, detail: str) -> Evidence:
    return Evidence(EvidenceKind.SOURCE, status, f"{FOLDER}/virtio_pci_common.c: {detail}")


def _calls(common: CSource, delete: Function) -> list[tuple[Function, int]]:
    """Calls of the member: in vp_del_vqs(), and in functions of the same file that it calls."""
    helpers = (f for f in common.functions() if f.name in delete.body and f.name != delete.name)
    reached = [delete, *helpers]
    return [(function, index) for function in reached for index in _member_calls(function.body)]


def _member_calls(body: Sequence[str]) -> Iterator[int]:
    """Indices of `->is_avq(`, or of `(*dev->is_avq)(`."""
    for index in range(1, len(body) - 1):
        if body[index] == CALLBACK and body[index - 1] in ("->", "."):
            following = index + 1
            while following < len(body) and body[following] == ")":
                following += 1
            if (
                following < len(body)
                and body[following] == "("
                and (following == index + 1 or _is_wrapped(body, index))
            ):
                yield index


def _is_wrapped(body: Sequence[str], index: int) -> bool:
    """Whether `(*x->is_avq)` stands in parentheses of its own, not `if (x->is_avq) (...)`."""
    for position in range(index, max(-1, index - 7), -1):
        if body[position] == "(":
            return body[position + 1] == "*" or body[position - 1] not in ("if", "while")
    return False


def _sets(legacy: CSource) -> bool:
    """Whether the legacy probe assigns the member something that is not null."""
    probe = legacy.function("virtio_pci_legacy_probe")
    body = probe.body if probe else ()
    return any(
        body[i] == CALLBACK and body[i + 1] == "=" and body[i + 2] not in ("NULL", "0") for i in range(len(body) - 2)
    )


def _guard(function: Function, call: int) -> str | None:
    """The condition that keeps a legacy device away from the call at this index; `None` if there is none."""
    body = function.body
    in_front = _same_condition(body, call)
    if in_front:
        return in_front
    for start, condition, end in _conditions(body):
        if start + 1 + len(condition) < call < end and (guard := _tells(condition)):
            return guard
        # `if (!dev->is_avq) return false;` in front of the call.
        if end <= call and _leaves(body, start + len(condition) + 3, end) and (guard := _tells_absence(condition)):
            return guard
    return None


def _same_condition(body: Sequence[str], call: int) -> str | None:
    """`is_avq && is_avq(...)` or `is_avq ? is_avq(...) : ...` or `!is_avq || !is_avq(...)`, on the way to the call."""
    start = call
    while start > 0 and body[start - 1] not in (";", "{", "}"):
        start -= 1
    words = list(body[start:call])
    # Leave the expression that names the callback for the call itself: dev -> is_avq.
    for operator in ("&&", "?"):
        position = _last(words, operator)
        if position is not None and (guard := _tells(words[:position])):
            return guard
    position = _last(words, "||")
    if position is not None:
        return _tells_absence(words[:position])
    return None


def _last(words: Sequence[str], wanted: str) -> int | None:
    return next((index for index in range(len(words) - 1, -1, -1) if words[index] == wanted), None)


def _conditions(body: Sequence[str]) -> Iterator[tuple[int, Sequence[str], int]]:
    """(index of `if`, its condition, index behind what it governs) of every `if`."""
    for index, word in enumerate(body):
        if word == "if" and index + 1 < len(body) and body[index + 1] == "(":
            close = matching(body, index + 1)
            after = close + 1
            if after < len(body) and body[after] == "{":
                end = matching(body, after)
            else:
                end = _statement_end(body, after)
            yield index, body[index + 2 : close], end + 1


def _statement_end(body: Sequence[str], start: int) -> int:
    depth = 0
    for index in range(start, len(body)):
        depth += (body[index] in "({[") - (body[index] in ")}]")
        if body[index] == ";" and not depth:
            return index
    return len(body)


def _leaves(body: Sequence[str], start: int, end: int) -> bool:
    return any(word in ("return", "continue", "goto") for word in body[start:end])


def _tells(condition: Sequence[str]) -> str | None:
    """What of this condition is false for a legacy device; `None` if nothing is known to be."""
    if "||" in condition:
        return None
    for part in _split(condition, "&&"):
        text = " ".join(part).strip("( )")
        compact = text.replace(" ", "")
        named = re.fullmatch(
            r"\(*(?:!!)?\(*\w+(?:->|\.)is_avq\)*(?:!=(?:NULL|0))?\)*|(?:NULL|0)!=\w+(?:->|\.)is_avq", compact
        )
        if named:
            return "the pointer is set"
        if re.fullmatch(r"!\(?\w+(?:->|\.)is_legacy\)?|\w+(?:->|\.)is_legacy==(?:0|false)", compact):
            return "the device is not legacy"
        feature = re.search(
            r"virtio_has_feature\([^,]+,(?:VIRTIO_F_ADMIN_VQ|VIRTIO_F_VERSION_1|41|32)\)", compact + ")" * 1
        )
        if feature and not compact.startswith("!"):
            return "a feature is negotiated that no legacy device has"
    return None


def _tells_absence(condition: Sequence[str]) -> str | None:
    """What of this condition is true for a legacy device: the negation of `_tells`."""
    if "&&" in condition:
        return None
    for part in _split(condition, "||"):
        compact = "".join(part).strip("()")
        if re.fullmatch(r"(?:if\(|\(|\w+=)*!\(?\w+(?:->|\.)is_avq\)?", compact) or re.fullmatch(
            r"(?:if\(|\()*(?:\w+(?:->|\.)is_avq==(?:NULL|0)|(?:NULL|0)==\w+(?:->|\.)is_avq)", compact
        ):
            return "the pointer is set"
        if re.fullmatch(r"(?:if\(|\()*\w+(?:->|\.)is_legacy", compact):
            return "the device is not legacy"
    return None


def _split(words: Sequence[str], operator: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word == operator:
            yield _without_head(part)
            part = []
        else:
            part.append(word)
    yield _without_head(part)


def _without_head(part: list[str]) -> list[str]:
    """Drop `if (`, `return`, `x =` in front of an expression."""
    while part and part[0] in ("if", "return", "(", "while", "else"):
        part = part[1:]
    if len(part) > 2 and part[1] == "=":
        part = part[2:]
    return part
