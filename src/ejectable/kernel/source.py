# SPDX-License-Identifier: GPL-2.0-or-later
"""C source, read as far as questions about one function need it: tokens without comments, functions, conditions.

No preprocessing beyond leaving out `#if 0`; macros stay what they are called. Each token knows where it stands in the
text, so that one can be changed and everything around it kept byte for byte.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ejectable.errors import BadInput, Denied, Missing
from ejectable.intake import open_regular, read_bounded

__all__ = ["CSource", "Function", "read_source"]

MOST_SOURCE = 16 << 20
TOKEN = re.compile(
    r"""
      (?P<directive>(?:(?<=\n)|(?<=\A))[ \t]*\#(?:[^\n\\]|\\\r?\n|\\.)*+)
    | (?P<blank>\n(?=[ \t]*\#)|(?:(?!\n[ \t]*\#)\s)+|\\\r?\n)
    | (?P<comment>/\*(?:.*?\*/|.*\Z)|//[^\n]*)
    | (?P<text>"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?)
    | (?P<word>\w+)
    | (?P<mark>->|\+\+|--|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|\.\.\.|.)
    """,
    re.VERBOSE | re.DOTALL,
)
OPEN, CLOSE = {"(": ")", "{": "}", "[": "]"}, {")", "}", "]"}


class Function(msgspec.Struct, frozen=True):
    """A function's definition: its name and the tokens between its braces."""

    name: str
    parameters: tuple[str, ...]  # tokens
    body: tuple[str, ...]
    at: int = 0  # the index of the body's first token among those of the file


class CSource:
    """One file, as tokens. `spans` are their (start, end), in characters of `text`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: tuple[str, ...] = ()
        self.spans: tuple[tuple[int, int], ...] = ()
        # Where the preprocessor chooses (`#if`, `#else` ...): indices of the tokens that follow.
        self.choices: tuple[int, ...] = ()
        choices: list[int] = []
        found = tuple(_tokens(text, choices))
        if found:
            self.tokens, self.spans = zip(*found, strict=True)
        self.choices = tuple(choices)

    def functions(self) -> Iterator[Function]:
        """Every function that is defined here, in order."""
        tokens = self.tokens
        index = 0
        while index < len(tokens):
            if tokens[index] == "{":
                end = matching(tokens, index)
                head = _head(tokens, index)
                if head is not None:
                    name, start = head
                    parameters = tokens[start + 1 : matching(tokens, start)]
                    yield Function(name, parameters, tokens[index + 1 : end], index + 1)
                index = end
            index += 1

    def function(self, name: str) -> Function | None:
        """The function of this name."""
        return next((function for function in self.functions() if function.name == name), None)

    def chosen(self, function: Function) -> bool:
        """Whether the preprocessor chooses among parts of this function: its tokens are then not what is compiled."""
        return any(function.at < choice < function.at + len(function.body) for choice in self.choices)

    def struct(self, name: str) -> tuple[str, ...] | None:
        """The tokens between the braces of `struct name { ... }`."""
        for index in range(len(self.tokens) - 2):
            if self.tokens[index : index + 3] == ("struct", name, "{"):
                return self.tokens[index + 3 : matching(self.tokens, index + 2)]
        return None


def read_source(path: Path) -> CSource | None:
    """The file, or `None` where there is none; raises `BadInput` for what is no text of a reasonable size."""
    try:
        opened = open_regular(path)
    except Denied:  # it may be there: that is another answer than "there is none"
        raise
    except (Missing, BadInput):
        return None
    with opened as stream:
        data = read_bounded(stream, MOST_SOURCE, name=str(path))
    if b"\0" in data:
        raise BadInput("C source was expected, and this is binary", path=str(path))
    # An author's name in another encoding survives the way back into the file.
    return CSource(data.decode("utf-8", "surrogateescape"))


def matching(tokens: Sequence[str], start: int) -> int:
    """The index of the bracket that closes the one at `start`; the end where it is never closed."""
    depth = 0
    for index in range(start, len(tokens)):
        if tokens[index] in OPEN:
            depth += 1
        elif tokens[index] in CLOSE:
            depth -= 1
            if not depth:
                return index
    return len(tokens)


def _head(tokens: Sequence[str], brace: int) -> tuple[str, int] | None:
    """Name and opening parenthesis of the function whose body starts at `brace`; `None` for other braces."""
    if not brace or tokens[brace - 1] != ")":
        return None
    depth, index = 0, brace - 1
    while index > 0 and tokens[index] not in (";", "{", "}"):
        depth += (tokens[index] == ")") - (tokens[index] == "(")
        if not depth:
            name = tokens[index - 1]
            return (name, index) if re.fullmatch(r"[A-Za-z_]\w*", name) else None
        index -= 1
    return None


def _tokens(text: str, choices: list[int]) -> Iterator[tuple[str, tuple[int, int]]]:
    left_out = 0  # how deep in `#if 0`
    count = 0
    for match in TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "directive":
            word = re.sub(r"\s+", " ", match[0].strip().removeprefix("#").strip())
            if left_out:
                if word.startswith("if"):
                    left_out += 1
                elif word.startswith("endif") or (left_out == 1 and word.startswith("el")):
                    left_out -= 1
            elif word in ("if 0", "if (0)"):
                left_out = 1
            elif word.startswith(("if", "el")):
                choices.append(count)
        elif not left_out and kind in ("word", "mark", "text"):
            count += 1
            yield match[0], match.span()
