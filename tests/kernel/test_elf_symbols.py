# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbols of an ELF file are those that nm prints."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.symbols.elf import read_elf_symbols

SOURCE = """
static int counter; int zeroed; int set = 1; const int fixed = 3; static const char *name = "x";
extern void elsewhere(void);
__attribute__((weak)) int weak_function(void) { return counter; }
__attribute__((weak)) int weak_object;
static __attribute__((noinline)) int quiet(int n) { return n + set; }
int vp_del_vqs(int n) { elsewhere(); counter += n; return quiet(n) + fixed + (name[0] == 'x'); }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "a.c").write_text(SOURCE)
    # A position that a kernel would be linked at.
    for arguments in (
        ["-c", "a.c", "-o", "a.o"],
        ["-static", "-nostdlib", "-no-pie", "-Wl,-Ttext=0xffffffff81000000,--unresolved-symbols=ignore-all",
         "-Wl,-e,vp_del_vqs", "-Wl,--build-id=none", "-mcmodel=kernel", "a.c", "-o", "vmlinux"],
    ):  # fmt: skip
        subprocess.run(
            ["gcc", "-O1", "-fno-pic", "-fno-asynchronous-unwind-tables", *arguments], cwd=folder, check=True
        )
    return folder


def nm(path: Path) -> set[tuple[int, str, str]]:
    lines = subprocess.run(["nm", path], check=True, capture_output=True, text=True).stdout.splitlines()
    return {(int(line[:16], 16), line[17], line[19:]) for line in lines if line[:16].strip()}


def test_a_linked_kernel_has_the_symbols_that_nm_prints(folder: Path) -> None:
    path = folder / "vmlinux"
    found = {(symbol.address, symbol.kind, symbol.name) for symbol in read_elf_symbols(path.read_bytes())}
    assert found == nm(path)
    assert {"vp_del_vqs", "quiet", "weak_function"} <= {name for _, _, name in found}


def test_a_relocatable_file_has_them_at_the_addresses_its_sections_are_given(folder: Path) -> None:
    path = folder / "a.o"
    data = path.read_bytes()
    text = Elf(data, name="a.o").section(".text")
    assert text is not None
    base = 0xFFFF_FFFF_C040_0000
    found = {(symbol.address - base, symbol.name) for symbol in read_elf_symbols(data, sections={text.index: base})}
    assert found == {
        (address, name) for address, _, name in nm(path) if name in {"vp_del_vqs", "quiet", "weak_function"}
    }


def test_the_size_of_a_function_is_known(folder: Path) -> None:
    table = read_elf_symbols((folder / "vmlinux").read_bytes())
    symbol = table.get("vp_del_vqs")
    assert symbol is not None
    assert table.describe(symbol.address + symbol.size - 1) == f"vp_del_vqs+{symbol.size - 1:#x}"


def test_a_stripped_file_has_none(folder: Path) -> None:
    subprocess.run(["strip", "-o", folder / "stripped", folder / "vmlinux"], check=True)
    assert len(read_elf_symbols((folder / "stripped").read_bytes())) == 0


@settings(deadline=None, derandomize=True, max_examples=100)
@given(at=st.floats(0, 1), patch=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused(folder: Path, at: float, patch: bytes, cut: bool) -> None:
    data = (folder / "vmlinux").read_bytes()
    start = int(at * (len(data) - len(patch)))
    damaged = data[:start] if cut else data[:start] + patch + data[start + len(patch) :]
    try:
        names = {symbol.name for symbol in read_elf_symbols(damaged)}
    except BadInput as error:
        names = {error.message}
    assert all(isinstance(name, str) for name in names)
