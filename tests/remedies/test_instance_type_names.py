# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of instance types: what may be compared, and what never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ejectable.remedies.ecs.names import parse, successors
from ejectable.remedies.ecs.offers import unfit

EIGHT = (
    *("g8i", "g8a", "g8ae", "g8y", "g8ine", "c8i", "c8ine", "c8a", "c8ae", "c8y", "r8i", "r8a", "r8ae", "r8y"),
    *("hfc8i", "hfg8i", "hfr8i", "re8", "ebmg8i", "ebmc8y"),
)
NINE = ("g9i", "g9a", "g9ae", "c9i", "c9a", "c9ae", "r9i", "r9a", "r9ae", "hfg9i", "ebmg9ae")
SEVEN = ("g7", "g7a", "g7se", "g7ne", "g7t", "c7", "c7nex", "r7p", "hfg7", "hfc7", "ebmg7", "ebmhfg7", "g7h", "re7p")


@pytest.mark.parametrize("family", [*EIGHT, *NINE])
def test_the_eighth_generation_and_later_should_be_modern(family: str) -> None:
    name = parse(f"ecs.{family}.2xlarge")
    assert name is not None
    assert name.modern is True
    assert successors(name) == (), "it needs none"
    assert unfit(name.name) is None


@pytest.mark.parametrize("family", [*SEVEN, "g6e", "c6", "r5", "g5ne", "hfc6", "g6r", "ebmg5s", "re6"])
def test_earlier_general_families_are_older(family: str) -> None:
    name = parse(f"ecs.{family}.large")
    assert name is not None
    assert name.modern is False
    assert "8 or later" in (unfit(name.name) or "")


@pytest.mark.parametrize(
    "text",
    [
        "ecs.gn8is.2xlarge",  # 8 is the GPU's architecture
        "ecs.gn7i-c8g1.2xlarge",
        "ecs.ebmgn8v.48xlarge",
        "ecs.vgn6i-m4.xlarge",
        "ecs.sgn8ia-m2.xlarge",
        "ecs.i4.large",
        "ecs.i9.large",
        "ecs.d3s.2xlarge",
        "ecs.u1-c1m2.large",
        "ecs.u2i-c1m8.large",
        "ecs.e-c1m1.large",
        "ecs.t6-c1m2.large",
        "ecs.s6-c1m1.small",
        "ecs.sn2ne.large",
        "ecs.f3-c16f1.4xlarge",
        "ecs.mn9.large",
        "ecs.g8i-x.large",
    ],
)
def test_outside_of_the_general_families_no_number_is_compared(text: str) -> None:
    name = parse(text)
    assert name is not None
    assert (name.kind, name.generation, name.modern, name.arch) == (None, None, None, None)
    assert "cannot be compared" in (unfit(text) or "")


@pytest.mark.parametrize(
    "text", ["", "g7.large", "ecs.g7", "ecs..large", "ecs.G7.large", "ecs.g7.large; reboot", "ecs.g7.l\n"]
)
def test_what_is_no_name_is_none(text: str) -> None:
    assert parse(text) is None
    assert "no instance type" in (unfit(text) or "")


@pytest.mark.parametrize(
    ("text", "arch", "maker"),
    [
        ("ecs.g8y.large", "aarch64", "arm"),
        ("ecs.g6r.large", "aarch64", "arm"),
        ("ecs.g8ae.large", "x86_64", "amd"),
        ("ecs.c7a.large", "x86_64", "amd"),
        ("ecs.g8i.large", "x86_64", "intel"),
        ("ecs.g7.large", "x86_64", "intel"),
        ("ecs.g7h.large", "x86_64", "hygon"),
    ],
)
def test_the_suffix_tells_the_processor(text: str, arch: str, maker: str) -> None:
    name = parse(text)
    assert name is not None
    assert (name.arch, name.maker) == (arch, maker)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ecs.g7.2xlarge", ("ecs.g8i.2xlarge", "ecs.g8a.2xlarge")),
        ("ecs.c6a.large", ("ecs.c8a.large", "ecs.c8i.large")),
        ("ecs.c6r.large", ("ecs.c8y.large",)),
        ("ecs.g7ne.xlarge", ("ecs.g8ine.xlarge", "ecs.g8i.xlarge", "ecs.g8a.xlarge")),
        ("ecs.hfc7.large", ("ecs.hfc8i.large",)),
        ("ecs.re6.13xlarge", ("ecs.re8.13xlarge",)),
        ("ecs.ebmg7.32xlarge", ("ecs.ebmg8i.32xlarge",)),
        ("ecs.u1-c1m2.large", ("ecs.c8i.large", "ecs.c8a.large")),
        ("ecs.u1-c1m8.xlarge", ("ecs.r8i.xlarge", "ecs.r8a.xlarge")),
        ("ecs.t5-lc1m4.large", ("ecs.g8i.large", "ecs.g8a.large")),
        ("ecs.t6-c1m1.small", ("ecs.c8i.large", "ecs.c8a.large")),  # the general families begin at large
        ("ecs.sn2ne.large", ("ecs.g8i.large", "ecs.g8a.large")),
        ("ecs.se1.large", ("ecs.r8i.large", "ecs.r8a.large")),
        ("ecs.gn7i-c8g1.2xlarge", ()),
        ("ecs.i4.large", ()),
        ("ecs.d3s.2xlarge", ()),
        ("ecs.f3-c16f1.4xlarge", ()),
    ],
)
def test_the_guess_resembles_the_type(text: str, expected: tuple[str, ...]) -> None:
    name = parse(text)
    assert name is not None
    assert successors(name) == expected


@pytest.mark.parametrize("family", [*SEVEN, "g6e", "c5", "r6", "hfg6", "g6r"])
def test_every_guess_is_of_a_modern_generation_and_of_the_same_architecture(family: str) -> None:
    name = parse(f"ecs.{family}.large")
    assert name is not None
    for guess in successors(name):
        new = parse(guess)
        assert new is not None
        assert new.modern
        assert new.arch == name.arch


@given(st.text(max_size=80))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    for each in (text, f"ecs.{text}.large", f"ecs.g7.{text}"):
        name = parse(each)
        assert name is None or name.name == each
        if name is not None:
            assert all(parse(guess) for guess in successors(name))
