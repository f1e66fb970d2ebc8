# SPDX-License-Identifier: GPL-2.0-or-later
"""Types from DWARF say of every struct what the compiler itself said, and what BTF made from it says."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.types.btf import load_btf
from ejectable.kernel.types.dwarf import DwarfTypes, load_dwarf
from tests.kernel.compiled import clang
from tests.kernel.synthetic import tool

# pahole leaves the writing of the section to llvm-objcopy, if it is not told of another one.
PAHOLE = {**os.environ, "LLVM_OBJCOPY": "objcopy"}
SOURCE = """
typedef unsigned char u8; typedef _Bool bool;
struct list_head { struct list_head *next, *prev; };
enum colour { RED, GREEN = 5, BLUE = -1 };
struct virtio_device { int index; bool failed; struct list_head vqs; const char *const name; volatile u8 *isr; };
struct virtio_pci_device {
    struct virtio_device vdev;
    union { struct { int legacy; int more; }; long modern; };
    unsigned int low : 3, high : 7; unsigned long : 0; u8 tail : 1;
    bool (*is_avq)(struct virtio_device *vdev, unsigned int index);
    char (*names)[256]; enum colour colour; struct virtio_pci_device *self;
    int (*printf)(const char *format, ...); char flexible[];
};
struct matrix { int grid[2][3]; };  /* BTF has it flat */
struct declared_only;
struct declared_only *pointer; struct virtio_pci_device device; struct matrix matrix; enum colour colour;
int function(struct virtio_pci_device *d) { return d->vdev.index; }
"""
VARIANTS = {
    "gcc-4": ["gcc", "-gdwarf-4"],
    "gcc-5": ["gcc", "-gdwarf-5"],
    "gcc-5-compressed": ["gcc", "-gdwarf-5", "-gz=zlib"],
    "clang-5": ["clang-16", "-gdwarf-5"],
    "arm64": ["aarch64-linux-gnu-gcc", "-gdwarf-5"],
}


def compiled(folder: Path, variant: str) -> Path:
    path = folder / f"{variant}.o"
    if not path.exists():
        name, *options = VARIANTS[variant]
        compiler = clang() if name == "clang-16" else tool(name, "build-essential gcc-aarch64-linux-gnu")
        subprocess.run([compiler, *options, "-xc", "-c", "-", "-o", path], input=SOURCE.encode(), check=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dwarf")


@pytest.mark.parametrize("variant", VARIANTS)
def test_members_lie_where_the_compiler_put_them(folder: Path, variant: str) -> None:
    types = load_dwarf(compiled(folder, variant).read_bytes())
    struct = types.struct("virtio_pci_device")
    assert struct is not None
    named = {member.name: member for member in struct.members}
    assert struct.members[0].name == "vdev"
    assert named["is_avq"].type_name == "bool (*)(struct virtio_device *, unsigned int)"
    assert named["names"].type_name == "char (*)[256]"
    assert named["printf"].type_name == "int (*)(const char *, ...)"
    assert named["flexible"].bit_size == 0
    assert (named["low"].bit_size, named["low"].is_bitfield) == (3, True)
    assert named["high"].bit_offset == named["low"].bit_offset + 3
    grid = types.member("matrix", "grid")
    assert grid is not None
    assert (grid.bit_size, grid.type_name) == (6 * 32, "int[2][3]")
    name = types.member("virtio_device", "name")
    assert name is not None
    assert name.type_name == "const char *const"


@pytest.mark.parametrize("variant", ["gcc-4", "gcc-5", "clang-5"])
def test_dwarf_and_btf_of_one_file_agree(folder: Path, variant: str) -> None:
    path = compiled(folder, variant)
    copy = path.with_suffix(".btf.o")
    copy.write_bytes(path.read_bytes())
    subprocess.run(["pahole", "--btf_encode", copy], check=True, env=PAHOLE)
    elf = Elf(copy.read_bytes(), name="the copy")
    section = elf.section(".BTF")
    assert section is not None
    blob = elf.content(section)
    dwarf, btf = load_dwarf(path.read_bytes()), load_btf(blob)
    for name in ("virtio_pci_device", "virtio_device", "list_head"):
        struct = dwarf.struct(name)
        assert struct is not None
        assert struct == btf.struct(name)
    for path_of_member in (
        "vdev.vqs.next",
        "legacy",
        "modern",
        "more",
        "tail",
        "colour",
        "vdev.vqs",
        "nothing",
        "self.vdev",
    ):
        assert dwarf.member("virtio_pci_device", path_of_member) == btf.member("virtio_pci_device", path_of_member)
    assert dwarf.enum("colour") == btf.enum("colour") == {"RED": 0, "GREEN": 5, "BLUE": -1}


def test_what_is_only_declared_or_unknown_is_none(folder: Path) -> None:
    types = load_dwarf(compiled(folder, "gcc-5").read_bytes())
    assert types.struct("declared_only") is None
    assert types.struct("nowhere") is None
    assert types.member("nowhere", "x") is None
    assert types.enum("virtio_device") is None


def test_a_file_without_debugging_information_is_refused(folder: Path) -> None:
    path = folder / "plain.o"
    subprocess.run(["gcc", "-xc", "-c", "-", "-o", path], input=SOURCE.encode(), check=True)
    with pytest.raises(BadInput, match="without debugging information"):
        load_dwarf(path.read_bytes())


@settings(deadline=None, derandomize=True, max_examples=60)
@given(at=st.floats(0, 1), patch=st.binary(min_size=1, max_size=6))
def test_damaged_information_is_read_or_refused(folder: Path, at: float, patch: bytes) -> None:
    data = bytearray(compiled(folder, "gcc-5").read_bytes())
    start = int(at * (len(data) - len(patch)))
    data[start : start + len(patch)] = patch
    try:
        types: DwarfTypes | None = load_dwarf(bytes(data))
        assert types is not None
        types.struct("virtio_pci_device")
        types.member("virtio_pci_device", "vdev.vqs.next")
    except (BadInput, DamagedInput):
        types = None
    assert types is None or types.source == "dwarf"
