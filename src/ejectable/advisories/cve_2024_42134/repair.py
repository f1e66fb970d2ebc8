# SPDX-License-Identifier: GPL-2.0-or-later
"""The repair of the source: the pointer is tested before it is called, and all else stays byte for byte.

The edit is made on the expression that holds the call, not on lines: it does not matter how it is laid out, what the
variables are called, or what the call is combined with. A device whose pointer is NULL has no admin queue, so the
answer that takes the place of the call is "no", as in the kernel's own fix (c8fae27d141a).
"""

import re
from collections.abc import Iterator, Sequence

from ejectable.advisories.cve_2024_42134.source import CALLBACK, COMMON, FOLDER, Call, Reading
from ejectable.errors import BadInput
from ejectable.kernel.expressions import NULLS, Expression, assume, canonical, inner
from ejectable.kernel.source import CSource

__all__ = ["repaired"]

COLUMNS = 100  # scripts/checkpatch.pl, max_line_length
TAB = 8
# Macros that turn a pointer into another one and do nothing else: their argument may be spelled twice.
CONVERSIONS = {"to_vp_device", "container_of"}
Edit = tuple[int, int, str]  # characters from, to, and what stands there afterwards


def repaired(reading: Reading) -> str:
    """The text of virtio_pci_common.c with a test in front of every open call.

    Raises `BadInput` for a condition whose meaning is not certain: nothing is changed by guessing.
    """
    edits = [edit for call in reading.open for edit in _edits(reading.common, call)]
    text = reading.common.text
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _edits(common: CSource, call: Call) -> list[Edit]:
    assert call.place is not None
    assert call.node is not None
    body = call.function.body
    if any(fact.says == call.pointer and not fact.true for fact in call.place.facts):
        turned = next(_turned(common, call), None)
        if turned is None:
            raise _not_understood(f"{call.function.name}() calls {CALLBACK} where it is known to be NULL")
        return [turned]
    at = call.place.chain.index(call.node)
    called = inner(call.node.parts[0])
    member = inner(called.parts[0]) if called.kind == "unary" else called
    if not _can_stand_twice(body, member.parts[0]):
        raise _not_understood(f"what stands in front of {CALLBACK} does more than name a device")
    if at == 0 and _is_statement(body, call.node):
        raise _not_understood(f"{call.function.name}() calls {CALLBACK} and does not use its answer")
    around = call.place.chain[at - 1] if at else None
    start, end = _span(common, call, call.node)
    return [*_in_front(common.text, call.pointer, start, end, around), *_too_late(common, call, around)]


def _in_front(text: str, pointer: str, start: int, end: int, around: Expression | None) -> list[Edit]:
    """The test, and parentheses where the call is an operand of something that binds more tightly than `&&`."""
    bare = around is None or around.kind in ("&&", "()", "=", ",", "call")
    opening = "" if bare else "("
    line = text.rfind("\n", 0, start) + 1
    column = len((text[line:start] + opening).expandtabs(TAB))
    rest = re.match(r"[^\r\n]*", text[start:])
    width = column + len(f"{pointer} && ") + len(rest[0] if rest else "")
    gap = " "
    if width > COLUMNS:
        gap = ("\r\n" if "\r\n" in text else "\n") + "\t" * (column // TAB) + " " * (column % TAB)
    added = [(start, start, f"{opening}{pointer} &&{gap}")]
    return added if bare else [*added, (end, end, ")")]


def _turned(common: CSource, call: Call) -> Iterator[Edit]:
    """`!pointer && call`, `pointer == NULL && call`: the test stands there, the wrong way round."""
    assert call.place is not None
    body = call.function.body
    for node, held in zip(call.place.chain, call.place.chain[1:], strict=False):
        if node.kind != "&&":
            continue
        for part in node.parts[: node.parts.index(held)]:
            test = inner(part)
            if test.kind == "unary" and body[test.start] == "!" and canonical(body, test.parts[0]) == call.pointer:
                yield _span(common, call, test)[0], _span(common, call, test.parts[0])[0], ""
            sides = {canonical(body, one) for one in test.parts}
            if test.kind == "==" and call.pointer in sides and sides & NULLS:
                yield *common.spans[call.function.at + test.parts[0].end], "!="


def _too_late(common: CSource, call: Call, around: Expression | None) -> Iterator[Edit]:
    """`call && pointer`: the test behind the call is of no use once there is one in front; a comment stays."""
    if around is None or around.kind != "&&" or call.node is None:
        return
    body = call.function.body
    for before, part in zip(around.parts, around.parts[1:], strict=False):
        facts = [(fact.says, fact.true) for fact in assume(body, part, true=True)]
        if part.start >= call.node.end:
            start, end = _span(common, call, before)[1], _span(common, call, part)[1]
            words = "".join(body[before.end : part.end])
            if facts == [(call.pointer, True)] and re.sub(r"\s+", "", common.text[start:end]) == words:
                yield start, end, ""


def _can_stand_twice(body: Sequence[str], expression: Expression) -> bool:
    """Whether spelling it a second time changes nothing: it names a device, and does nothing else."""
    if expression.kind == "call":
        return canonical(body, expression.parts[0]) in CONVERSIONS and all(
            part.kind == "opaque" or _can_stand_twice(body, part) for part in expression.parts[1:]
        )
    if expression.kind == "unary":
        return body[expression.start] in ("*", "&") and _can_stand_twice(body, expression.parts[0])
    named = expression.kind in ("word", "()", "member", "index")
    return named and all(_can_stand_twice(body, part) for part in expression.parts)


def _is_statement(body: Sequence[str], node: Expression) -> bool:
    """Whether it stands by itself, as `call();`."""
    return node.start == 0 or body[node.start - 1] in (";", "{", "}", ")", "else", "do", ":")


def _span(common: CSource, call: Call, node: Expression) -> tuple[int, int]:
    """Where a node of the function stands in the text, in characters."""
    spans = common.spans
    return spans[call.function.at + node.start][0], spans[call.function.at + node.end - 1][1]


def _not_understood(why: str) -> BadInput:
    return BadInput(
        f"{why}; nothing is changed by guessing",
        path=f"{FOLDER}/{COMMON}",
        hint=f"Test {CALLBACK} in front of the call by hand, then run it again: it says whether that is enough.",
    )
