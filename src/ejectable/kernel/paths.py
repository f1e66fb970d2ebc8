# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known where a token of a C function is reached: the conditions on the way to it.

    place = find(function.body, index)
    place.facts      what must be true there: ("dev->ask", True) behind `if (!dev->ask) return;`
    place.chain      the expressions around it, the whole one first

Only what holds on every way counts: what a loop assigns is forgotten in it, and a label forgets everything. Nothing
is assumed of what the called functions do.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from ejectable.kernel.expressions import ASSIGNMENTS, Expression, Fact, arguments, assume, parse
from ejectable.kernel.source import matching

__all__ = ["Place", "find"]

IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
MAX_BODY = 20_000  # tokens; a usual one has some two hundred
LEAVING = ("return", "goto", "break", "continue")
Facts = tuple[Fact, ...]


class Place(msgspec.Struct, frozen=True):
    """Where a token stands."""

    facts: Facts
    chain: tuple[Expression, ...]


def find(body: Sequence[str], position: int) -> Place | None:
    """The place of the token at `position` of a function's body; `None` where the code around it is not understood."""
    if len(body) > MAX_BODY:
        return None
    walk = _Walk(body, position)
    try:
        walk.sequence(0, len(body), ())
    except RecursionError:
        return None
    return walk.found


class _Walk:
    """One way through the statements, in order; statements give (index behind, facts behind, whether they leave)."""

    def __init__(self, tokens: Sequence[str], position: int) -> None:
        self.tokens = tokens
        self.position = position
        self.found: Place | None = None
        self.cases: list[Facts] = []  # what is known at the labels of each switch around

    def _at(self, index: int) -> str:
        return self.tokens[index] if index < len(self.tokens) else ""

    def sequence(self, at: int, end: int, facts: Facts) -> tuple[Facts, bool]:
        left = False
        while at < end and self.found is None:
            at, facts, left = self.statement(at, end, facts)
        return facts, left

    def statement(self, at: int, end: int, facts: Facts) -> tuple[int, Facts, bool]:
        word = self._at(at)
        if at >= end:
            return end, facts, False
        if word == "{":
            close = matching(self.tokens, at)
            return close + 1, *self.sequence(at + 1, close, facts)
        if word == "if" and self._at(at + 1) == "(":
            return self._if(at, end, facts)
        if word in ("while", "for", "switch") and self._at(at + 1) == "(":
            return self._loop(at, end, facts)
        if word == "do":
            behind, _, _ = self.statement(at + 1, end, self._surviving(facts, at, self._do_end(at, end)))
            close = self._semicolon(behind, end)
            facts = self._surviving(facts, at, close)
            self._look(behind + 2, close - 1, facts)
            return close + 1, facts, False
        if word in ("case", "default"):
            while at < end and self._at(at) != ":":
                at += 1
            return at + 1, self.cases[-1] if self.cases else (), False
        if IDENTIFIER.fullmatch(word) and self._at(at + 1) == ":":
            return at + 2, (), False
        if IDENTIFIER.fullmatch(word) and self._at(at + 1) == "(" and word not in LEAVING:
            close = matching(self.tokens, at + 1)
            if close + 1 < end and (self._at(close + 1) == "{" or IDENTIFIER.fullmatch(self._at(close + 1))):
                return self._loop(at, end, facts)  # list_for_each_entry() and its kin
        close = self._semicolon(at, end)
        self._look(at + 1 if word == "return" else at, close, facts)
        return close + 1, self._surviving(facts, at, close), word in LEAVING

    def _if(self, at: int, end: int, facts: Facts) -> tuple[int, Facts, bool]:
        close = matching(self.tokens, at + 1)
        self._look(at + 2, close, facts)
        facts = self._surviving(facts, at + 2, close)
        condition = parse(self.tokens, at + 2, close)
        behind, yes, yes_leaves = self.statement(close + 1, end, self._and(facts, condition, true=True))
        no, no_leaves = self._and(facts, condition, true=False), False
        if self._at(behind) == "else" and behind < end:
            behind, no, no_leaves = self.statement(behind + 1, end, no)
        if yes_leaves or no_leaves:
            return behind, no if yes_leaves else yes, yes_leaves and no_leaves
        known = {(fact.says, fact.true) for fact in no}
        return behind, tuple(fact for fact in yes if (fact.says, fact.true) in known), False

    def _loop(self, at: int, end: int, facts: Facts) -> tuple[int, Facts, bool]:
        """Also a switch, and a macro that is one: the body may run many times or not at all."""
        word = self._at(at)
        close = matching(self.tokens, at + 1)
        facts = self._surviving(facts, at, self._body_end(close + 1, end))
        within = facts
        if word == "for":
            parts = self._split(at + 2, close)
            for start, stop in parts:
                self._look(start, stop, facts)
            if len(parts) == 3:
                within = self._and(facts, parse(self.tokens, *parts[1]), true=True)
        elif word == "while":
            self._look(at + 2, close, facts)
            within = self._and(facts, parse(self.tokens, at + 2, close), true=True)
        else:
            if word != "switch":
                given = {self._at(start) for start, stop in arguments(self.tokens, at + 2, close) if stop == start + 1}
                facts = within = tuple(fact for fact in facts if not given & _words(fact))
            self._look(at, close + 1, facts)
        if word == "switch":
            self.cases.append(facts)
        behind, _, _ = self.statement(close + 1, end, within)
        if word == "switch":
            self.cases.pop()
        return behind, facts, False

    def _split(self, start: int, close: int) -> list[tuple[int, int]]:
        stops = [index for index in range(start, close) if self._at(index) == ";"]
        return list(zip([start, *(stop + 1 for stop in stops)], [*stops, close], strict=True))

    def _semicolon(self, at: int, end: int) -> int:
        depth = 0
        for index in range(at, end):
            depth += (self._at(index) in "({[") - (self._at(index) in ")}]")
            if self._at(index) == ";" and depth <= 0:
                return index
        return end

    def _body_end(self, at: int, end: int) -> int:
        """A bound of the statement at `at`, for what it may assign; beyond it does no harm."""
        return matching(self.tokens, at) if self._at(at) == "{" else end

    def _do_end(self, at: int, end: int) -> int:
        return self._body_end(at + 1, end)

    # Facts

    def _and(self, facts: Facts, condition: Expression | None, *, true: bool) -> Facts:
        if condition is None:
            return facts
        told = tuple(assume(self.tokens, condition, true=true))
        return (*facts, *self._surviving(told, condition.start, condition.end))

    def _surviving(self, facts: Facts, start: int, end: int) -> Facts:
        """The facts that nothing between `start` and `end` may have changed."""
        if not facts:
            return facts
        changed = set(_assigned(self.tokens, start, min(end, len(self.tokens))))
        return tuple(fact for fact in facts if not changed & _words(fact))

    def _look(self, start: int, end: int, facts: Facts) -> None:
        """Find the position within an expression, or within what a declaration starts with."""
        if not start <= self.position < end or self.found is not None:
            return
        whole = parse(self.tokens, start, end)
        if whole is None:
            for first, stop in arguments(self.tokens, start, end):
                equals = next((i for i in range(first, stop) if self._at(i) == "="), None)
                if equals is not None and equals < self.position < stop:
                    whole = parse(self.tokens, equals + 1, stop)
        if whole is None:
            return
        chain = [whole]
        while (part := next((p for p in chain[-1].parts if p.start <= self.position < p.end), None)) is not None:
            facts = self._before(chain[-1], part, facts)
            chain.append(part)
        if chain[-1].kind != "opaque":
            self.found = Place(facts, tuple(chain))

    def _before(self, around: Expression, part: Expression, facts: Facts) -> Facts:
        """What the operands in front of `part` add to the facts: C11, 6.5.13 to 6.5.17."""
        at = around.parts.index(part)
        if around.kind in ("&&", "||", ",", "?:"):
            for earlier in around.parts[:at]:
                facts = self._surviving(facts, earlier.start, earlier.end)
                if around.kind in ("&&", "||"):
                    facts = self._and(facts, earlier, true=around.kind == "&&")
            if around.kind == "?:" and at:
                facts = self._and(facts, around.parts[0], true=at == 1 and len(around.parts) == 3)
        return facts


def _words(fact: Fact) -> set[str]:
    return set(IDENTIFIER.findall(fact.says))


def _assigned(tokens: Sequence[str], start: int, end: int) -> Iterable[str]:
    """The variables and members that are assigned, counted, or lent out by address."""
    for at in range(start, end):
        word = tokens[at]
        if word in ASSIGNMENTS or word in ("++", "--"):
            before = at - 1
            if before >= start and tokens[before] in ("]", ")"):
                depth = 0
                while before >= start:
                    depth += (tokens[before] in ")]") - (tokens[before] in "([")
                    before -= 1
                    if not depth:
                        break
            if before >= start:
                yield tokens[before]
            if word in ("++", "--") and at + 1 < end:
                yield from (name for name in tokens[at + 1 : at + 6] if IDENTIFIER.fullmatch(name))
        elif word == "&" and at + 2 < len(tokens) and tokens[at - 1] in ("(", ",") and tokens[at + 2] in (",", ")"):
            yield tokens[at + 1]
