# SPDX-License-Identifier: GPL-2.0-or-later
"""An event as it would be if names that were typed or read wrong were put right."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from ejectable.advisories.resemblance import closest
from ejectable.advisories.signature import Signature
from ejectable.crash.frames import base
from ejectable.model import Event

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["put_right", "symbols"]

# A whole name in a pattern: what stands beside a class, a group or a repetition is only a part of one.
LITERAL = re.compile(r"(?<![\w\\\])}*+?.])[A-Za-z_]\w{5,80}(?![\w\\\[({*+.])")


def put_right(event: Event, known: Iterable[str]) -> tuple[Event, dict[str, str]]:
    """The event with each name that resembles a known one replaced by that, and what was replaced."""
    names = tuple(known)
    where, plus, offset = (event.ip or "").partition("+")
    candidates = {base(frame.function) for frame in event.trace} | ({where} if plus else set())
    replaced = {name: right for name in candidates if name not in names and (right := closest(name, names))}
    if not replaced:
        return event, {}
    trace = tuple(
        msgspec.structs.replace(frame, function=replaced.get(base(frame.function), frame.function))
        for frame in event.trace
    )
    ip = f"{replaced.get(where, where)}{plus}{offset}" if event.ip else None
    function = replaced.get(event.function or "", event.function)
    return msgspec.structs.replace(event, trace=trace, ip=ip, function=function), replaced


def symbols(advisory: "Advisory") -> tuple[str, ...]:
    """The functions that an advisory's crash, or one that looks like it, is known by."""
    patterns = list(advisory.code.functions)
    if isinstance(signature := advisory.signature, Signature):
        patterns += [signature.at, *signature.needs]
    for row in advisory.facts.look_alikes:
        patterns += [row.at, *row.needs]
    return _literals(tuple(patterns))


@lru_cache(maxsize=256)
def _literals(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pattern in patterns for name in LITERAL.findall(pattern)))
