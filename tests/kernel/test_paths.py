# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known where a token is reached holds on every way there, and on no account more."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.kernel.expressions import canonical, parse
from ejectable.kernel.paths import find
from ejectable.kernel.source import CSource


def facts(code: str) -> set[tuple[str, bool]]:
    """What is known at `HERE` in a function's body."""
    body = CSource(f"void f(void) {{ {code} }}").function("f")
    assert body is not None
    place = find(body.body, body.body.index("HERE"))
    assert place is not None
    return {(fact.says, fact.true) for fact in place.facts}


@pytest.mark.parametrize(
    "code",
    [
        "if (d->p && HERE(1)) go();",
        "if (d->p) HERE();",
        "if (d->p) { int x = HERE(); }",
        "if (!d->p) return; HERE();",
        "if (!d->p) { log(); return; } HERE();",
        "if (!d->p) goto out; HERE();",
        "if (!d->p) ; else HERE();",
        "if (d->p == NULL) return; HERE();",
        "if (NULL != (d->p) && a && HERE()) ;",
        "if (likely(d->p) && HERE()) ;",
        "if (WARN_ON(!d->p)) return; HERE();",
        "if (!!d->p) HERE();",
        "x = d->p ? HERE() : 0;",
        "x = !d->p ? 0 : HERE();",
        "if (!d->p || !HERE()) go();",
        "if (!(d->p && a)) return; HERE();",
        "for (i = 0; i < n; i++) { if (!d->p) continue; HERE(); }",
        "list_for_each_entry(q, &v->list, node) { if (!d->p) continue; HERE(); }",
        "while (d->p) HERE();",
        "if (d->p) list_for_each_entry_safe(q, n, &v->list, node) { HERE(q); }",
        "switch (a) { case 1: if (!d->p) break; HERE(); }",
        "do { if (!d->p) break; HERE(); } while (0);",
        "if ((*d).p) HERE();",
        "if (a) { if (!d->p) return; } else { if (!d->p) return; } HERE();",
        "return d->p && HERE();",
        "if (d->p) x = (u16)HERE(a, (struct s *)b, sizeof(struct s));",
    ],
)
def test_a_test_on_every_way_is_known(code: str) -> None:
    assert ("d->p", True) in facts(code)


@pytest.mark.parametrize(
    "code",
    [
        "HERE();",
        "if (d->p || HERE()) ;",
        "if (d->p) log(); HERE();",
        "if (d->p || a) HERE();",
        "if (!d->p) { if (a) return; } HERE();",
        "if (!d->p) while (a) { break; } HERE();",
        "while (a) { if (!d->p) break; } HERE();",
        "if (d->p) goto on; on: HERE();",
        "if (!d->p) return; d = other(); HERE();",
        "if (!d->p) return; d->p = NULL; HERE();",
        "if (!d->p) return; get(&d); HERE();",
        "if (d->p) { while (a) { HERE(); d++; } }",
        "if (d->p) list_for_each_entry(d, &v->list, node) HERE();",
        "switch (a) { case 1: if (!d->p) return; case 2: HERE(); }",
        "switch (a) { case 1: if (!d->p) break; } HERE();",
        "if (a) { if (!d->p) return; } HERE();",
        "if (HERE() && d->p) ;",
        "x = HERE() ? d->p : 0;",
        "if (e->p) HERE();",
        "if (d->p, a) HERE();",
        "if (d->p && (d = e)) HERE();",
        "if (d->p + 1) HERE();",
        "if (ask(d->p)) HERE();",
    ],
)
def test_a_test_on_some_way_only_is_not_known(code: str) -> None:
    assert ("d->p", True) not in facts(code)


def test_what_is_known_to_be_false_is_told_apart() -> None:
    assert ("d->p", False) in facts("if (!d->p && HERE()) ;")
    assert ("d->p", False) in facts("if (d->p || HERE()) ;")
    assert ("d->p", False) in facts("if (d->p) return; HERE();")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("((d))->p", "d->p"),
        ("(*d).p", "d->p"),
        ("(&v)->p", "v.p"),
        ("a[(i)].p", "a[i].p"),
        ("to_dev((v))->p", "to_dev(v)->p"),
    ],
)
def test_what_is_the_same_is_spelt_the_same(one: str, other: str) -> None:
    spelt = []
    for text in (one, other):
        tokens = CSource(text).tokens
        found = parse(tokens, 0, len(tokens))
        assert found is not None
        spelt.append(canonical(tokens, found))
    assert spelt == [other, other]


def test_parentheses_that_matter_are_kept() -> None:
    tokens = CSource("a * (b + c)").tokens
    found = parse(tokens, 0, len(tokens))
    assert found is not None
    assert canonical(tokens, found) == "a*(b+c)"


@pytest.mark.parametrize("code", ["x = ({ HERE(); });", "struct s v = { HERE };", "{ ( HERE ; }", "asm(HERE : x);"])
def test_what_is_beyond_us_is_not_guessed(code: str) -> None:
    body = CSource(f"void f(void) {{ {code} }}").tokens[5:]
    assert find(body, body.index("HERE")) is None


WORDS = [*"(){}[];,?:!=ab", "&&", "||", "==", "->", "if", "else", "while", "do", "case", "HERE"]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.sampled_from(WORDS), max_size=40))
def test_anything_can_be_asked(words: list[str]) -> None:
    body = (*words, "HERE")
    place = find(body, len(words))
    assert place is None or place.chain[-1].start <= len(words) < place.chain[-1].end


def test_depth_is_bounded() -> None:
    for deep in (("(",) * 5000 + ("HERE",) + (")",) * 5000, ("{",) * 5000 + ("HERE", ";"), ("!",) * 5000 + ("HERE",)):
        assert find(deep, deep.index("HERE")) is None
