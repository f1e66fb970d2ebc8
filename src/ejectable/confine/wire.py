# SPDX-License-Identifier: GPL-2.0-or-later
"""What a confined child and its parent say to each other: answers through a pipe, requests and replies at a socket."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ejectable import errors
from ejectable.errors import EjectableError

__all__ = [
    "HEAD",
    "LONGEST_REPLY",
    "LONGEST_REQUEST",
    "Answer",
    "Fence",
    "Outside",
    "Reply",
    "decoded",
    "encoded",
    "name_of",
]

# What the parent does for the child, by name. Arguments are texts; a number that comes back is a descriptor, which is
# handed over and closed here.
Outside = Mapping[str, Callable[..., int | str | bool]]
LONGEST_REQUEST = LONGEST_REPLY = 1 << 14  # bytes: a path
HEAD = 4  # bytes in front of each answer: how long it is, big-endian
# Lone surrogates, by which Python spells bytes that are no UTF-8 and JSON whatever it likes, travel as characters for
# private use.
THERE = {lone: 0x10_0000 + lone for lone in range(0xD800, 0xE000)}
BACK = {there: here for here, there in THERE.items()}


class Fence(msgspec.Struct, frozen=True):
    """How much a child may take."""

    memory: int = 3 << 30  # bytes of address space
    cpu: int | None = 600  # seconds of computing
    seconds: float | None = 1200  # by the clock on the wall, while the parent listens
    answer: int = 64 << 20  # bytes that come back at once
    descriptors: int = 64
    threads: bool = False  # whether it may start threads


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the child sends: a value, unless one of the other fields says how it went."""

    value: bytes = b""  # what the work gave
    end: bool = False  # there is no more
    escaped: bool = False  # its texts hold what stands for lone surrogates, which no encoding can carry
    error: str | None = None  # the class of an EjectableError
    message: str = ""
    hint: str | None = None
    needs: str | None = None  # a module that has to be imported before the fence is closed


class Reply(msgspec.Struct, frozen=True):
    """The parent's answer to a request; a descriptor comes beside it."""

    value: bytes | bool | None = None
    error: str | None = None  # the class of an EjectableError
    number: int = 0  # of a system call's error
    message: str = ""
    hint: str | None = None


def name_of(error: EjectableError) -> str:
    """The class of an error, or the nearest above it that stands in `ejectable.errors`."""
    kinds = (kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return str(next(kinds).__name__)


def encoded(value: object) -> Answer:
    """The answer that carries a value."""
    try:
        return Answer(value=msgspec.msgpack.encode(value))
    except UnicodeEncodeError:  # the name of a file that is no UTF-8
        return Answer(value=msgspec.msgpack.encode(_texts(msgspec.to_builtins(value), THERE)), escaped=True)


def decoded(answer: Answer, into: Any) -> Any:
    """The value in an answer, of the type `into`. Raises `ValueError` where it is of another."""
    if not answer.escaped:
        return msgspec.msgpack.decode(answer.value, type=into)
    return msgspec.convert(_texts(msgspec.msgpack.decode(answer.value), BACK), into)


def _texts(value: Any, table: dict[int, int]) -> Any:
    """The same plain value with other characters in its texts."""
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, dict):
        return {_texts(key, table): _texts(item, table) for key, item in value.items()}
    return [_texts(item, table) for item in value] if isinstance(value, list | tuple) else value
