# SPDX-License-Identifier: GPL-2.0-or-later
"""C is read as C: comments, strings, line breaks and `#if 0` do not hide or invent anything."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.kernel.source import CSource

SOURCE = r"""
/* int fake(void) { return 1; } */
#define MACRO(x) do { x; } while (0)
struct device { /* struct inner { } */ int a; bool (*ask)(int); };
#if 0
static int left_out(void) { return 2; }
#else
static int taken(int a,
                 char *b) // { not a brace
{
	if (a) { return '{'; }
	call("} /* */", b);
	return 0;
}
#endif
int (*table[])(void) = { one, two };
"""


def test_functions_are_found_with_their_bodies() -> None:
    read = CSource(SOURCE)
    assert [function.name for function in read.functions()] == ["taken"]
    taken = read.function("taken")
    assert taken is not None
    assert taken.parameters == ("int", "a", ",", "char", "*", "b")
    assert taken.body[-3:] == ("return", "0", ";")
    assert '"} /* */"' in taken.body


def test_a_struct_is_found_by_its_name() -> None:
    read = CSource(SOURCE)
    assert read.struct("device") == ("int", "a", ";", "bool", "(", "*", "ask", ")", "(", "int", ")", ";")
    assert read.struct("inner") is None


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(alphabet="(){}[];#if 0\n/*\"'\\ax", max_size=200))
def test_anything_can_be_read(text: str) -> None:
    read = CSource(text)
    assert all(function.name for function in read.functions())
    assert read.struct("a") is None or isinstance(read.struct("a"), tuple)


def test_a_directive_may_be_indented() -> None:
    text = "int f(void)\n{\n\t#if 0\n\tleft_out();\n  # else\n\ttaken();\n\t#\tendif\n"
    text += "\t#ifdef X\n\tx();\n#endif\n\ty();\n}\n"
    read = CSource(text)
    function = read.function("f")
    assert function is not None
    assert [word for word in function.body if word.isidentifier()] == ["taken", "x", "y"]
    assert read.chosen(function)
    assert not CSource("  #ifdef X\n#endif\nint g(void) { }").choices[1:]


def test_every_token_knows_where_it_stands() -> None:
    read = CSource(SOURCE)
    assert [read.text[start:end] for start, end in read.spans] == list(read.tokens)
    taken = read.function("taken")
    assert taken is not None
    assert read.tokens[taken.at : taken.at + len(taken.body)] == taken.body


@pytest.mark.parametrize(
    "part", ["/* ", "){}", "((", "{", '"', "'\\", "#if 0\n", "\\\n", "\n \t", "struct virtio {", "f(){"]
)
def test_a_file_that_means_harm_takes_no_longer_than_its_size(part: str) -> None:
    started = time.process_time()
    read = CSource(part * (200_000 // len(part)))
    assert sum(1 for _ in read.functions()) >= 0
    assert read.struct("nothing") is None
    assert time.process_time() - started < 10
