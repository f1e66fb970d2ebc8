# SPDX-License-Identifier: GPL-2.0-or-later
"""C expressions, as trees over the tokens of a function: which operand is which, and what one being true tells.

The grammar is that of C11, section 6.5, without types: `(word)` in front of an operand is a cast, and what is in
parentheses and is no expression (a type, a statement expression) is `opaque`.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from ejectable.kernel.source import matching

__all__ = ["Expression", "Fact", "arguments", "assume", "canonical", "inner", "parse"]

MAX_TOKENS = 8192
MAX_DEPTH = 64
ASSIGNMENTS = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
# Binding power of the operators that take two operands, from the loosest.
BINDING = {
    operator: power
    for power, operators in enumerate(
        (",", "=", "?", "||", "&&", "|", "^", "&", "== !=", "< > <= >=", "<< >>", "+ -", "* / %"), 1
    )
    for operator in operators.split()
} | dict.fromkeys(ASSIGNMENTS, 2)
PREFIX = {"!", "~", "-", "+", "*", "&", "++", "--", "sizeof"}
WORD = re.compile(r"[\w\"']")
STARTS = re.compile(r"[\w\"'(!~]")
# include/linux/compiler.h and include/asm-generic/bug.h: each gives its argument's truth back.
TRANSPARENT = {"likely", "unlikely", "WARN_ON", "WARN_ON_ONCE", "READ_ONCE"}
NULLS, TRUES = {"NULL", "0", "false", "0x0", "0UL", "0L"}, {"true", "1"}


class Expression(msgspec.Struct, frozen=True):
    """A node; `start` and `end` are token indices. `kind` is the operator, or one of the words below.

    word, () parenthesised, call (callee, then arguments), member (the object), index, unary, postfix, cast, ?:, opaque.
    Chains of one operator are one node: `a && b && c` has three parts.
    """

    kind: str
    start: int
    end: int
    parts: tuple["Expression", ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """What is known of an expression (in its canonical spelling), and where it was tested."""

    says: str
    true: bool
    where: Expression


class _NotAnExpressionError(ValueError):
    pass


def parse(tokens: Sequence[str], start: int, end: int) -> Expression | None:
    """The expression that the tokens from `start` to before `end` are; `None` if they are none, or beyond bounds."""
    if not 0 < end - start <= MAX_TOKENS:
        return None
    parser = _Parser(tokens, end)
    try:
        found, at = parser.binary(start, 1, 0)
    except (_NotAnExpressionError, RecursionError):
        return None
    return found if at == end else None


def inner(expression: Expression) -> Expression:
    """The expression without the parentheses around it."""
    while expression.kind == "()":
        expression = expression.parts[0]
    return expression


def canonical(tokens: Sequence[str], expression: Expression) -> str:
    """One spelling for what is the same: no superfluous parentheses or blanks, and `(*p).m` is `p->m`."""
    bare = inner(expression)
    if bare.kind == "member":
        owner, name = inner(bare.parts[0]), tokens[bare.end - 1]
        if tokens[bare.end - 2] == "." and owner.kind == "unary" and tokens[owner.start] == "*":
            return f"{canonical(tokens, owner.parts[0])}->{name}"
        if tokens[bare.end - 2] == "->" and owner.kind == "unary" and tokens[owner.start] == "&":
            return f"{canonical(tokens, owner.parts[0])}.{name}"
    words: list[str] = []
    at = bare.start
    for part in bare.parts:
        words += tokens[at : part.start]
        spelt = canonical(tokens, part)
        closed = part.kind != "()" or inner(part).kind in ("word", "member", "call", "index")
        words.append(spelt if closed else f"({spelt})")
        at = part.end
    words += tokens[at : bare.end]
    text = ""
    for word in words:
        text += f" {word}" if text and word and WORD.match(text[-1]) and WORD.match(word) else word
    return text


def assume(tokens: Sequence[str], expression: Expression, *, true: bool) -> Iterator[Fact]:
    """What follows from the expression's being true (or false): one fact for each part that is then decided."""
    bare = inner(expression)
    if bare.kind == "unary" and tokens[bare.start] == "!":
        yield from assume(tokens, bare.parts[0], true=not true)
    elif bare.kind == ("&&" if true else "||"):
        for part in bare.parts:
            yield from assume(tokens, part, true=true)
    elif bare.kind == ",":
        yield from assume(tokens, bare.parts[-1], true=true)
    elif bare.kind == "cast" and tokens[bare.start : bare.start + 3] == ("(", "bool", ")"):
        yield from assume(tokens, bare.parts[0], true=true)
    elif bare.kind == "call" and len(bare.parts) == 2 and canonical(tokens, bare.parts[0]) in TRANSPARENT:
        yield from assume(tokens, bare.parts[1], true=true)
    elif bare.kind in ("==", "!=") and len(bare.parts) == 2 and (compared := _compared(tokens, bare)):
        other, constant = compared
        same = (bare.kind == "==") is true
        yield from assume(tokens, other, true=same is constant)
    else:
        yield Fact(canonical(tokens, bare), true, bare)


def arguments(tokens: Sequence[str], start: int, end: int) -> list[tuple[int, int]]:
    """The (start, end) of what the commas between `start` and `end` divide."""
    found: list[tuple[int, int]] = []
    depth, begun = 0, start
    for at in range(start, end):
        depth += (tokens[at] in "([{") - (tokens[at] in ")]}")
        if tokens[at] == "," and not depth:
            found.append((begun, at))
            begun = at + 1
    return [*found, (begun, end)] if end > start else []


def _compared(tokens: Sequence[str], comparison: Expression) -> tuple[Expression, bool] | None:
    """What is compared with a constant, and whether that is a true one: `x == NULL` gives (x, False)."""
    for this, other in (comparison.parts, comparison.parts[::-1]):
        word = canonical(tokens, this)
        if word in NULLS or word in TRUES:
            return other, word in TRUES
    return None


class _Parser:
    """Precedence climbing. Every method gives the expression and the index behind it."""

    def __init__(self, tokens: Sequence[str], end: int) -> None:
        self.tokens = tokens
        self.end = end

    def _at(self, index: int) -> str:
        return self.tokens[index] if index < self.end else ""

    def binary(self, at: int, power: int, depth: int) -> tuple[Expression, int]:
        if depth > MAX_DEPTH:
            raise _NotAnExpressionError
        left, at = self.unary(at, depth)
        while (binds := BINDING.get(operator := self._at(at), 0)) >= power:
            if operator == "?":
                left, at = self._conditional(left, at, depth)
            elif operator in ASSIGNMENTS:
                right, behind = self.binary(at + 1, binds, depth + 1)
                left, at = Expression(operator, left.start, behind, (left, right)), behind
            else:
                right, at = self.binary(at + 1, binds + 1, depth + 1)
                parts = left.parts if left.kind == operator else (left,)
                left = Expression(operator, left.start, at, (*parts, right))
        return left, at

    def _conditional(self, condition: Expression, at: int, depth: int) -> tuple[Expression, int]:
        parts = [condition]
        if self._at(at + 1) == ":":  # GNU C: the condition's own value where it is not zero
            at += 1
        else:
            middle, at = self.binary(at + 1, 1, depth + 1)
            parts.append(middle)
            if self._at(at) != ":":
                raise _NotAnExpressionError
        last, at = self.binary(at + 1, BINDING["?"], depth + 1)
        return Expression("?:", condition.start, at, (*parts, last)), at

    def unary(self, at: int, depth: int) -> tuple[Expression, int]:
        if depth > MAX_DEPTH:
            raise _NotAnExpressionError
        if self._at(at) in PREFIX:
            operand, behind = self.unary(at + 1, depth + 1)
            return Expression("unary", at, behind, (operand,)), behind
        return self._postfix(*self._primary(at, depth), depth)

    def _primary(self, at: int, depth: int) -> tuple[Expression, int]:
        word = self._at(at)
        if word == "(":
            close = matching(self.tokens, at)
            if close >= self.end:
                raise _NotAnExpressionError
            held = self._within(at + 1, close, depth)
            if STARTS.match(self._at(close + 1) or ";") and self._at(close + 1) not in ("(", "!="):
                operand, behind = self.unary(close + 1, depth + 1)
                return Expression("cast", at, behind, (operand,)), behind
            if held.kind == "opaque":
                if self._at(close + 1) in PREFIX or self._at(close + 1) == "(":
                    operand, behind = self.unary(close + 1, depth + 1)
                    return Expression("cast", at, behind, (operand,)), behind
                return Expression("opaque", at, close + 1), close + 1
            return Expression("()", at, close + 1, (held,)), close + 1
        if not word or not WORD.match(word):
            raise _NotAnExpressionError
        at += 1
        while word[0] == '"' and self._at(at)[:1] == '"':
            at += 1
        return Expression("word", at - 1, at), at

    def _within(self, start: int, close: int, depth: int) -> Expression:
        """What stands between brackets: an expression, or something opaque."""
        try:
            held, behind = _Parser(self.tokens, close).binary(start, 1, depth + 1)
        except _NotAnExpressionError:
            behind = -1
            held = Expression("opaque", start, close)
        return held if behind == close else Expression("opaque", start, close)

    def _postfix(self, left: Expression, at: int, depth: int) -> tuple[Expression, int]:
        while True:
            word = self._at(at)
            if word in ("->", ".") and WORD.match(self._at(at + 1) or ";"):
                at += 2
                left = Expression("member", left.start, at, (left,))
            elif word in ("(", "["):
                close = matching(self.tokens, at)
                if close >= self.end:
                    raise _NotAnExpressionError
                held = [self._within(*pair, depth) for pair in arguments(self.tokens, at + 1, close)]
                at = close + 1
                left = Expression("call" if word == "(" else "index", left.start, at, (left, *held))
            elif word in ("++", "--"):
                at += 1
                left = Expression("postfix", left.start, at, (left,))
            else:
                return left, at
