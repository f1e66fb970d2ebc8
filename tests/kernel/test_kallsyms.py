# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols come out of every order of kallsyms tables as they were put in, and out of damaged ones not at all."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput
from ejectable.kernel.program import Image, Segment, SymbolTable
from ejectable.kernel.symbols.kallsyms import KallsymsTable, read_kallsyms
from tests.kernel.kallsyms_tables import BASE, LAYOUTS, TABLES_AT, Encoding, Entry, Layout, image_of, many, tables


def entries_for(encoding: str) -> list[Entry]:
    return [entry for entry in many() if encoding in ("percpu", "absolute") or entry[0] >= BASE]


def read(layout: Layout, encoding: Encoding, alignment: int = 8) -> tuple[list[Entry], KallsymsTable]:
    entries = entries_for(encoding)
    blob = tables(entries, layout, encoding, at=BASE + TABLES_AT, alignment=alignment)
    return entries, read_kallsyms(image_of(blob))


@pytest.mark.parametrize("alignment", [8, 4])
@pytest.mark.parametrize(("layout", "encoding"), LAYOUTS)
def test_every_symbol_is_read_from_every_layout(layout: Layout, encoding: Encoding, alignment: int) -> None:
    entries, table = read(layout, encoding, alignment)
    assert [(symbol.address, symbol.kind, symbol.name) for symbol in table] == entries
    assert len(table) == len(entries)


@pytest.mark.parametrize(("layout", "encoding"), LAYOUTS)
def test_every_name_is_found_and_no_other(layout: Layout, encoding: Encoding) -> None:
    entries, table = read(layout, encoding)
    for address, kind, name in entries:
        symbol = table.get(name)
        assert symbol is not None
        assert (symbol.address, symbol.kind, symbol.name) == (address, kind, name)
    for name in ("", "vp_del", "vp_del_vqs_", "vp_del_vqs.", "func_0001", "zzz", "A", ".", "\0", "vp_request"):
        assert table.get(name) is None


@pytest.mark.parametrize(("layout", "encoding"), LAYOUTS)
def test_it_answers_as_a_plain_table_of_the_same_symbols_would(layout: Layout, encoding: Encoding) -> None:
    _, table = read(layout, encoding)
    plain = SymbolTable(table)
    for name in ("vp_del_vqs", "vp_find_vqs_msix", "vp_request", "func_0100", "nothing"):
        assert table.variants(name) == plain.variants(name)
        assert table.function(name) == plain.function(name)
    vp_del_vqs = table.get("vp_del_vqs")
    assert vp_del_vqs is not None
    assert vp_del_vqs.size == 0x220
    assert table.describe(vp_del_vqs.address + 0x6E) == "vp_del_vqs+0x6e"
    assert table.describe(vp_del_vqs.address + 0x221) == "vp_del_vqs.cold+0x1"
    # Of two at one address the kernel prints the first.
    assert table.describe(vp_del_vqs.address + 0x310) == "vp_request.constprop.0+0x0"


def test_a_flat_image_without_a_base_learns_it_from_its_symbols() -> None:
    blob = tables(entries_for("base"), "v6.4", "base", at=TABLES_AT)
    symbol = read_kallsyms(image_of(blob, base=0)).get("_text")
    assert symbol is not None
    assert symbol.address == BASE


def test_a_base_that_was_not_relocated_is_that_of_the_image_if_the_first_symbol_is() -> None:
    entries = entries_for("base")
    blob = bytearray(tables(entries, "v6.4", "base", at=BASE + TABLES_AT))
    place = blob.rindex(struct.pack("<Q", BASE))
    blob[place : place + 8] = bytes(8)
    symbol = read_kallsyms(image_of(bytes(blob))).get("vp_del_vqs")
    assert symbol is not None
    assert symbol.address == next(address for address, _, name in entries if name == "vp_del_vqs")


def test_a_base_that_was_not_relocated_is_not_guessed() -> None:
    entries = [entry for entry in entries_for("base") if entry[2] not in ("_text", "startup_64")]
    blob = bytearray(tables(entries, "v6.4", "base", at=BASE + TABLES_AT, base=entries[0][0]))
    place = blob.rindex(struct.pack("<Q", entries[0][0]))
    blob[place : place + 8] = bytes(8)
    with pytest.raises(BadInput):
        read_kallsyms(image_of(bytes(blob)))


def test_an_image_without_kallsyms_says_so() -> None:
    with pytest.raises(BadInput, match="no kallsyms"):
        read_kallsyms(Image("x86_64", [Segment(BASE, memoryview(bytes(1 << 16)), 1 << 16, True, "LOAD 0")]))


def test_tables_for_another_image_are_refused() -> None:
    far = BASE + 0x4000_0000
    blob = tables(entries_for("base"), "v6.4", "base", at=BASE + TABLES_AT)
    with pytest.raises(BadInput, match="no order that is known"):
        read_kallsyms(image_of(blob, base=far))


BLOBS = {
    (layout, encoding): tables(entries_for(encoding), layout, encoding, at=BASE + TABLES_AT)
    for layout, encoding in LAYOUTS
}


def is_answered_or_refused(blob: bytes) -> bool:
    """Ask everything of tables that may be damaged: no error but the one that says so."""
    try:
        table = read_kallsyms(image_of(blob))
        table.get("vp_del_vqs")
        table.variants("vp_request")
        table.describe(BASE + 0x2345)
        return len(list(table)) <= table.tables.count
    except BadInput as error:
        return bool(error.message)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.sampled_from(sorted(BLOBS)), st.floats(0, 1))
def test_tables_that_are_cut_off_raise_nothing_but_bad_input(which: tuple[Layout, Encoding], share: float) -> None:
    blob = BLOBS[which]
    assert is_answered_or_refused(blob[: int(len(blob) * share)])


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.sampled_from(sorted(BLOBS)), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6)
)
def test_tables_with_wrong_bytes_raise_nothing_but_bad_input(
    which: tuple[Layout, Encoding], wrong: list[tuple[float, bytes]]
) -> None:
    blob = bytearray(BLOBS[which])
    for share, patch in wrong:
        start = int((len(blob) - len(patch)) * share)
        blob[start : start + len(patch)] = patch
    assert is_answered_or_refused(bytes(blob))
