# SPDX-License-Identifier: GPL-2.0-or-later
"""The worst line of a regular expression: found by trying what its own parts can be put together to.

    for pattern in patterns("ejectable"):
        line = worst_line(pattern)

A backtracking pattern is slow on what it nearly matches, again and again. The candidates are made from the pattern's
own parse tree: what each part of it accepts, repeated, alone and in pairs, behind what comes before it in the pattern.
"""

import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["is_searched", "patterns", "seconds", "worst_line"]

parser: Any = importlib.import_module("re._parser")  # since Python 3.11; it has no stubs
SMALL = 1 << 7
MOST_PIECES = 6
ENDS = ("", "\0")
Method = Callable[[str], object]


def patterns(package: str, *, without: Sequence[str] = ()) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Name and pattern of each compiled regular expression that stands in a module of a package, or in its tables."""
    top = importlib.import_module(package)
    seen: set[int] = set()
    for found in pkgutil.walk_packages(top.__path__, f"{package}."):
        if found.name.startswith(tuple(without)) or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for name, value in sorted(vars(module).items()):
            for number, pattern in enumerate(_within(value)):
                if id(pattern) not in seen:
                    seen.add(id(pattern))
                    yield f"{found.name}.{name}" + (f"[{number}]" if pattern is not value else ""), pattern


def _within(value: object, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, tuple | list | frozenset | set):
        for item in value:
            yield from _within(item, depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _within(item, depth - 1)
    elif depth and isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _within(getattr(value, field), depth - 1)


def is_searched(name: str) -> bool:
    """Whether the pattern of this name is looked for anywhere in a text, and not only at its beginning.

    What stands in a table may be used in any way.
    """
    module, _, variable = name.rpartition(".")
    if variable.endswith("]"):
        return True
    package = Path(importlib.import_module(module.partition(".")[0]).__path__[0])
    uses = re.compile(
        rf"\b{variable}\.(?:search|finditer|findall|subn?|split)\b|\b(?!{variable} = ){variable}(?![\w.])"
    )
    return any(uses.search(path.read_text(encoding="utf-8")) for path in package.rglob("*.py"))


def seconds(pattern: re.Pattern[Any], line: str, rounds: int = 2, *, searched: bool = True) -> float:
    """The time that the slowest way of using the pattern takes on the line, on this processor: the best round."""
    text: Any = line.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else line
    slowest = 0.0
    for method in (pattern.match, pattern.fullmatch, *((pattern.search,) if searched else ())):
        best = float("inf")
        for _ in range(rounds):
            before = time.process_time()
            method(text)
            best = min(best, time.process_time() - before)
        slowest = max(slowest, best)
    return slowest


def worst_line(pattern: re.Pattern[Any], size: int, *, searched: bool = True) -> str:
    """The candidate of this size that the pattern is slowest on, judged by smaller ones of the same make."""
    makes = list(_makes(pattern))
    return max(
        makes, key=lambda make: seconds(pattern, make(SMALL), 1, searched=searched), default=lambda size: "a" * size
    )(size)


def _makes(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], str]]:
    text = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    pieces = list(dict.fromkeys(_pieces(parser.parse(text, pattern.flags & ~re.UNICODE & ~re.LOCALE))))
    pieces = [piece for piece in pieces if piece][:MOST_PIECES] or ["a"]
    starts = ["", *dict.fromkeys("".join(pieces[:count]) for count in range(1, min(len(pieces), 3)))]
    repeated = [*pieces, *("".join(pair) for pair in itertools.permutations(pieces[:3], 2))]
    for start, piece, end in itertools.product(starts, repeated, ENDS):
        yield _make(start, piece, end)


def _make(start: str, piece: str, end: str) -> Callable[[int], str]:
    return lambda size: (start + piece * (size // len(piece) + 1))[:size] + end


def _pieces(tree: Any) -> Iterator[str]:
    """What each part of a parse tree accepts: a short example of it."""
    literal = ""
    for kind, value in tree:
        name = str(kind)
        if name == "LITERAL":
            literal += chr(value)
            continue
        if literal:
            yield literal
            literal = ""
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            yield from _pieces(value[2])
        elif name == "SUBPATTERN":
            yield from _pieces(value[-1])
        elif name == "BRANCH":
            for branch in value[1]:
                yield from _pieces(branch)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from _pieces(value[1])
        elif name == "ATOMIC_GROUP":
            yield from _pieces(value)
        elif name == "IN":
            yield from _members(value)
        elif name in ("ANY", "NOT_LITERAL"):
            yield "a"
            yield " "
    if literal:
        yield literal


def _members(items: Any) -> Iterator[str]:
    for kind, value in items[:4]:
        name = str(kind)
        if name == "LITERAL":
            yield chr(value)
        elif name == "RANGE":
            yield chr(value[0])
        elif name == "CATEGORY":
            yield {"CATEGORY_DIGIT": "1", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " "}.get(str(value), "-")
        elif name == "NEGATE":
            yield "~"
