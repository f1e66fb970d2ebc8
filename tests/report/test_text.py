# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people fits its lines and carries nothing that a terminal would obey."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.report.text import bullets, clean, columns, paint, wrap


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.characters(codec=None), max_size=60))
def test_no_escape_sequence_survives(text: str) -> None:
    cleaned = clean(text)
    assert not any(ord(char) < 32 and char not in "\t\n" for char in cleaned)
    assert not any(0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in cleaned)
    cleaned.encode()


def test_what_turns_writing_round_is_shown() -> None:
    assert clean("a\u202eb\x1b[2Jc") == "a\\u202eb\\x1b[2Jc"


def test_lines_are_wrapped_and_paths_stay_whole() -> None:
    path = "/usr/lib/modules/6.8.0-31-generic/kernel/drivers/virtio/virtio_pci.ko.zst"
    lines = wrap(f"it was read in {path} and nowhere else", width=60, first="  - ")
    assert any(path in line for line in lines)
    assert all(line.startswith(("  - ", "    ")) for line in lines)


def test_a_numbered_list_counts() -> None:
    assert bullets(["a", "b"], numbered=True) == ["  1. a", "  2. b"]


def test_a_table_is_aligned() -> None:
    assert columns([("a", "bb"), ("ccc", "d")], indent=0) == ["a    bb", "ccc  d"]
    assert columns([]) == []


def test_colour_is_only_there_when_asked_for() -> None:
    assert paint("affected", "affected", colour=False) == "affected"
    assert paint("affected", "affected", colour=True) == "\x1b[1;31maffected\x1b[0m"
