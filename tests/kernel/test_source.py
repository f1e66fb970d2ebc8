# SPDX-License-Identifier: GPL-2.0-or-later
"""C is read as C: comments, strings, line breaks and `#if 0` do not hide or invent anything."""

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
