# SPDX-License-Identifier: GPL-2.0-or-later
"""BTF is read as its specification says and as bpftool reads it, and damaged BTF is refused."""

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.program import Image, Segment
from ejectable.kernel.types import BtfTypes, find_btf, load_btf
from tests.kernel.synthetic import bpftool

FLAG = 1 << 31
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


class Writer:
    """Writes BTF after include/uapi/linux/btf.h: types are numbered in the order in which they are added."""

    def __init__(self, order: str = "<", *, first_id: int = 1, first_string: int = 0) -> None:
        self.order, self.next, self.first = order, first_id, first_string
        self.types, self.strings = bytearray(), bytearray(b"" if first_string else b"\0")

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return self.first + len(self.strings) - len(text) - 1

    def add(self, kind: int, name: str, last: int, *extra: int, vlen: int = 0, flag: bool = False) -> int:
        words = (self.name(name), kind << 24 | vlen | (FLAG if flag else 0), last, *extra)
        self.types += struct.pack(f"{self.order}{len(words)}I", *words)
        self.next += 1
        return self.next - 1

    def members(self, kind: int, name: str, size: int, *members: tuple[str, int, int], flag: bool = False) -> int:
        words = [word for text, type_id, offset in members for word in (self.name(text), type_id, offset)]
        return self.add(kind, name, size, *words, vlen=len(members), flag=flag)

    def blob(self) -> bytes:
        head = struct.pack(
            f"{self.order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        return head + bytes(self.types + self.strings)


def every_kind(order: str = "<") -> Writer:
    w = Writer(order)
    integer = w.add(INT, "int", 4, 1 << 24 | 32)
    w.add(FUNC_PROTO, "", integer, 0, integer, 0, 0, vlen=2)
    callback = w.add(PTR, "", 2)
    w.add(ARRAY, "", 0, integer, integer, 7)
    w.add(ENUM, "colour", 4, w.name("RED"), 0, w.name("BLUE"), 0xFFFFFFFF, vlen=2, flag=True)
    w.add(FWD, "opaque", 0)
    alias = w.add(TYPEDEF, "alias", w.next + 1)
    w.add(VOLATILE, "", w.next + 1)
    w.add(CONST, "", w.next + 1)
    w.add(RESTRICT, "", integer)
    w.add(FUNC, "vp_del_vqs", 2)
    w.add(VAR, "variable", integer, 1)
    w.add(DATASEC, ".data", 4, w.next - 1, 0, 4, vlen=1)
    w.add(FLOAT, "double", 8)
    w.add(DECL_TAG, "tag", alias, 0xFFFFFFFF)
    tagged = w.add(TYPE_TAG, "rcu", integer)
    w.add(ENUM64, "huge", 8, w.name("BIG"), 2, 1, vlen=1)
    inner = w.members(UNION, "", 8, ("a", integer, 0), ("b", callback, 0))
    w.members(STRUCT, "outer", 64, ("first", alias, 0), ("", inner, 64), ("list", 4, 128), ("tagged", tagged, 352),
              ("self", w.next + 1, 384))  # fmt: skip
    w.add(PTR, "", w.next - 1)
    return w


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_up_to_19_is_read_in_both_byte_orders(order: str) -> None:
    types = load_btf(every_kind(order).blob())
    outer = types.struct("outer")
    assert outer is not None
    assert [(m.name, m.bit_offset, m.bit_size, m.type_name) for m in outer.members] == [
        ("first", 0, 32, "alias"), ("", 64, 64, "union {...}"), ("list", 128, 224, "int[7]"),
        ("tagged", 352, 32, "int"), ("self", 384, 64, "struct outer *"),
    ]  # fmt: skip
    b = types.member("outer", "b")
    assert b is not None
    assert (b.bit_offset, b.type_name) == (64, "int (*)(int, ...)")
    assert types.enum("colour") == {"RED": 0, "BLUE": -1}
    assert types.enum("huge") == {"BIG": 1 << 32 | 2}
    for missing in ("opaque", "alias", "int", "double", "rcu", "nothing", "oute", "uter", "", "\0"):
        assert types.struct(missing) is None
    assert types.member("outer", "self.first") is None
    assert types.member("outer", "first.x") is None


def test_bit_fields_are_read_in_both_encodings() -> None:
    old, new = Writer(), Writer()
    plain = old.add(INT, "unsigned int", 4, 32)
    three = old.add(INT, "unsigned int", 4, 3)
    seven = old.add(INT, "unsigned int", 4, 3 << 16 | 7)
    old.members(STRUCT, "flags", 8, ("whole", plain, 0), ("low", three, 32), ("high", seven, 32))
    plain = new.add(INT, "unsigned int", 4, 32)
    new.members(
        STRUCT, "flags", 8, ("whole", plain, 0), ("low", plain, 3 << 24 | 32), ("high", plain, 7 << 24 | 35), flag=True
    )
    expected = [("whole", 0, 32, False), ("low", 32, 3, True), ("high", 35, 7, True)]
    for writer in (old, new):
        flags = load_btf(writer.blob()).struct("flags")
        assert flags is not None
        assert [(m.name, m.bit_offset, m.bit_size, m.is_bitfield) for m in flags.members] == expected


def test_structs_of_one_name_are_told_apart_by_their_members() -> None:
    w = Writer()
    integer = w.add(INT, "int", 4, 1 << 24 | 32)
    for members in ((("a", integer, 0),), (("b", integer, 0), ("c", integer, 32)), (("a", integer, 0),)):
        w.members(STRUCT, "controller", 8, *members)
    w.members(STRUCT, "alone", 4, ("a", integer, 0))
    types = load_btf(w.blob())
    assert len(types.homonyms("controller")) == 2, "two that are laid out alike are one"
    (one,) = types.homonyms("controller", ["c"])
    found = types.member(one, "c")
    assert found is not None
    assert found.offset == 4
    assert types.member(one, "a") is None
    assert types.homonyms("controller", ["d"]) == types.homonyms("nothing") == ()
    assert types.homonyms("alone") == ("alone",)


def test_split_btf_goes_on_where_its_base_ends() -> None:
    base = load_btf(every_kind().blob())
    module = Writer(first_id=len(base), first_string=base.string_end)
    outer = base.record(len(base) - 2)
    assert outer is not None
    own = module.members(STRUCT, "own", 80, ("base", outer.id, 0), ("more", 1, 512))
    module.members(STRUCT, "outer", 8, ("other", 1, 0))
    types = load_btf(module.blob(), base=base)
    assert own == len(base)
    deep = types.member("own", "base.list")
    assert deep is not None
    assert (deep.bit_offset, deep.type_name) == (128, "int[7]")
    redefined = types.struct("outer")
    assert redefined is not None
    assert redefined.members[0].name == "other"
    assert types.enum("colour") == base.enum("colour")


def test_a_name_that_stands_twice_among_the_strings_is_found_by_either() -> None:
    w = Writer()
    w.add(INT, "size", 4, 32)
    w.add(INT, "twice", 4, 32)
    w.members(STRUCT, "twice", 8, ("size", 1, 32))
    found = load_btf(w.blob()).member("twice", "size")
    assert found is not None
    assert found.offset == 4


def circles() -> dict[str, bytes]:
    found = {}
    w = Writer()
    w.add(TYPEDEF, "a", 2)
    w.add(CONST, "", 1)
    w.members(STRUCT, "s", 8, ("m", 1, 0))
    found["typedefs"] = w.blob()
    w = Writer()
    w.add(ARRAY, "", 0, 1, 1, 1)
    w.members(STRUCT, "s", 8, ("m", 1, 0))
    found["an array of itself"] = w.blob()
    w = Writer()
    w.add(INT, "int", 4, 32)
    w.add(ARRAY, "", 0, 2 + 1, 1, 0xFFFFFFFF)
    w.add(ARRAY, "", 0, 1, 1, 0xFFFFFFFF)
    w.members(STRUCT, "s", 8, ("m", 2, 0))
    found["an array beyond memory"] = w.blob()
    w = Writer()
    w.members(STRUCT, "s", 8, ("m", 4711, 0))
    found["a type that is not there"] = w.blob()
    w = Writer()
    w.add(INT, "int", 4, 32)
    w.add(STRUCT, "s", 8, vlen=0xFFFF)
    found["more members than there are"] = w.blob()
    w = Writer()
    w.add(23, "s", 8)
    w.members(STRUCT, "s", 8)
    found["an unknown kind"] = w.blob()
    w = Writer()
    w.add(INT, "int", 4, 32)
    w.add(STRUCT, "s", 8, 0xFFFFFF, 1, 0, vlen=1)
    found["a name that is not there"] = w.blob()
    return found


@pytest.mark.parametrize("what", circles())
def test_what_cannot_be_is_damaged(what: str) -> None:
    types = load_btf(circles()[what])
    with pytest.raises(DamagedInput):
        types.struct("s")


def test_a_function_that_takes_itself_can_be_spelled() -> None:
    w = Writer()
    w.add(PTR, "", 2)
    w.add(FUNC_PROTO, "", 0, *(0, 1) * 20, vlen=20)
    w.members(STRUCT, "", 8, ("", 3, 0), ("", 3, 0))
    w.members(STRUCT, "s", 8, ("call", 1, 0), ("", 3, 64))
    types = load_btf(w.blob())
    call = types.member("s", "call")
    assert call is not None
    assert len(call.type_name) < 10_000
    assert types.member("s", "never") is None


def ask(data: bytes, base: BtfTypes | None = None) -> bool:
    try:
        types = load_btf(data, base=base)
        types.struct("outer")
        types.member("outer", "b")
        types.enum("colour")
        return len(types) >= 1
    except BadInput as error:
        return bool(error.message)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 600), st.binary(max_size=8))
def test_damaged_btf_is_read_or_refused(start: int, patch: bytes) -> None:
    blob = every_kind().blob()
    assert ask(blob[:start])
    assert ask(blob[:start] + patch + blob[start + len(patch) :])


def test_the_kernels_own_is_found_among_smaller_ones() -> None:
    small, large = every_kind().blob(), every_kind()
    for number in range(50):
        large.add(TYPEDEF, f"filler_{number}", 1)
    own = large.blob()
    broken = own[:16] + b"\xff\xff" + own[18:]
    data = bytes(5000) + small + bytes(3) + broken + b"\x9f\xeb\x01\x00" + bytes(77) + own + bytes(4000) + small
    found = find_btf(Image("x86_64", [Segment(1 << 63, memoryview(data), len(data), False, "LOAD 0")]))
    assert found is not None
    assert bytes(found) == own
    assert find_btf(Image("x86_64", [Segment(0, memoryview(bytes(1 << 12)), 1 << 12, False, "LOAD 0")])) is None


# pahole leaves the writing of the section to llvm-objcopy, if it is not told of another one.
PAHOLE = {**os.environ, "LLVM_OBJCOPY": "objcopy"}
SOURCE = """
typedef unsigned char u8; typedef _Bool bool;
struct list_head { struct list_head *next, *prev; };
enum colour { RED, GREEN = 5, BLUE = -1 };
struct device { int index; bool failed; struct list_head vqs; const char *const name; volatile u8 *isr; };
struct outer {
    struct device vdev; union { struct { int legacy; int more; }; long modern; };
    unsigned int low : 3, high : 7; u8 tail : 1;
    bool (*is_avq)(struct device *vdev, unsigned int index); char (*names)[256]; enum colour colour; char end[];
} outer;
"""


def test_it_is_read_as_bpftool_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.o"
    subprocess.run(["gcc", "-g", "-xc", "-c", "-", "-o", path], input=SOURCE.encode(), check=True)
    subprocess.run(["pahole", "--btf_encode", path], check=True, env=PAHOLE)
    dump = subprocess.run([bpftool(), "-j", "btf", "dump", "file", path], check=True, capture_output=True).stdout
    elf = Elf(path.read_bytes(), name="a.o")
    section = elf.section(".BTF")
    assert section is not None
    compare(load_btf(elf.content(section)), json.loads(dump)["types"], least=3)


def compare(types: BtfTypes, theirs: list[dict[str, object]], *, least: int) -> None:
    """Every struct and enum that has a name of its own, and every type's kind, name and number."""
    assert len(types) == len(theirs) + 1
    seen: set[str] = set()
    compared = 0
    for entry in theirs:
        kind, name = entry["kind"], str(entry["name"]).removeprefix("(anon)")
        if kind in ("STRUCT", "UNION") and name and name not in seen:
            seen.add(name)
            found = types.struct(name)
            assert found is not None
            members = entry["members"]
            assert isinstance(members, list)
            assert (found.size, found.kind) == (entry["size"], str(kind).lower())
            assert [(m.name or "(anon)", m.bit_offset) for m in found.members] == [
                (m["name"], m["bits_offset"]) for m in members
            ]
            assert [m.bit_size for m in found.members if m.is_bitfield] == [
                m["bitfield_size"] for m in members if m.get("bitfield_size")
            ]
            compared += 1
        elif kind in ("ENUM", "ENUM64") and name and name not in seen:
            seen.add(name)
            values = entry["values"]
            assert isinstance(values, list)
            assert types.enum(name) == {value["name"]: value["val"] for value in values}
    assert compared >= least
