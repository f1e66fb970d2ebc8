# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people fits its lines and carries nothing that a terminal would obey."""

import sys
import unicodedata

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.report.document import encode
from ejectable.report.text import bullets, clean, columns, line_for_terminal, paint, wrap

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.characters(codec=None), max_size=60))
def test_no_escape_sequence_survives(text: str) -> None:
    cleaned = clean(text)
    assert not any(ord(char) < 32 for char in cleaned)
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
    painted = paint("affected", "affected", colour=True)
    assert line_for_terminal(f"  {painted}") == "  \x1b[1;31maffected\x1b[0m"


def test_every_character_that_is_not_seen_or_is_obeyed_is_escaped() -> None:
    bad = {chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in HIDDEN} - {"\t"}
    assert not {char for char in bad if char in clean(char)}


def test_what_we_did_not_paint_has_no_effect_on_a_terminal() -> None:
    outside = "vdb\x1b[2J\x9b31m\nFIXED\u2028\u061c"
    assert line_for_terminal(outside) == "vdb\\x1b[2J\\x9b31m\\nFIXED\\u2028\\u061c"
    assert columns([(outside, "a"), ("b", "c")])[0].count("\n") == 0


def test_a_document_holds_nothing_that_a_terminal_obeys() -> None:
    outside = {"name": "a\x1b[2J\x9b\u202e\u2028\x7f\U000e0001\u00e9"}
    data = encode(outside)
    assert not any(unicodedata.category(char) in HIDDEN for char in data.decode().replace("\n", ""))
    assert msgspec.json.decode(data) == outside
