# SPDX-License-Identifier: GPL-2.0-or-later
"""A module is linked as the real linker links it, and a broken one is one sentence."""

import os
import shutil
import struct
import subprocess
import tarfile
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.archive import cache_folder
from ejectable.errors import BadInput, DamagedInput
from ejectable.kernel import relocations
from ejectable.kernel.formats.elf import SHF_ALLOC, Elf
from ejectable.kernel.module import STUBS, Module
from ejectable.kernel.program import NotMapped
from ejectable.model import Arch
from tests.kernel import synthetic
from tests.kernel.synthetic import package_of, refusal, tool

VERSION = "6.1.0-50"
ARCHITECTURES = {"amd64": "ld", "arm64": "aarch64-linux-gnu-ld"}
MODULES = ("virtio_pci", "virtio", "virtio_ring", "virtio_balloon", "virtio_mem")
SHF_MERGE_STRINGS = 0x30


@cache
def shipped(architecture: str) -> dict[str, bytes]:
    """Debian's virtio modules, by name."""
    package = package_of(f"{VERSION}-cloud-{architecture}", architecture)
    folder = cache_folder() / f"modules-{package.stem}"
    if not folder.is_dir():
        aside = Path(f"{folder}.{os.getpid()}")
        aside.mkdir()
        tarball = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
        import io

        with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
            for member in archive:
                if "/drivers/virtio/" in member.name and member.name.endswith(".ko"):
                    content = archive.extractfile(member)
                    assert content is not None
                    (aside / Path(member.name).name).write_bytes(content.read())
        try:
            aside.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(aside)
    return {path.stem: path.read_bytes() for path in folder.glob("*.ko")}


@pytest.mark.kernels
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_linked_byte_for_byte_as_ld_links_it(architecture: str, name: str, tmp_path: Path) -> None:
    """Given our addresses, the real linker must come to the same bytes in every section."""
    linker = tool(ARCHITECTURES[architecture], "binutils gcc-aarch64-linux-gnu")
    if name not in shipped(architecture):
        name = "virtio_input"  # what is built in on one architecture is a module on the other
    data = _without_merging(shipped(architecture)[name])
    module = Module(data, name=name)
    placed = {segment.name: segment for segment in module.image.segments if segment.name != STUBS}
    script = "".join(f"{symbol.name} = {symbol.address:#x};\n" for symbol in module.symbols if symbol.kind == "U")
    script += "SECTIONS {\n"
    for segment in module.image.segments:
        if segment.name in placed:
            script += f"{segment.name} {segment.address:#x} : {{ KEEP(*({segment.name})) }}\n"
    (tmp_path / "script").write_text(script + "}\n")
    (tmp_path / "in.ko").write_bytes(data)
    command = [linker, "-T", "script", "-o", "out", "--no-relax", "--build-id=none", "in.ko"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    linked = Elf((tmp_path / "out").read_bytes(), name="out")
    compared = 0
    for section_name, segment in placed.items():
        section = linked.section(section_name)
        if section is None:  # ld keeps no notes of its own kind and no empty sections
            continue
        assert section.address == segment.address, section_name
        assert bytes(linked.content(section))[: len(segment.data)] == segment.data, section_name
        compared += len(segment.data)
    assert compared > 1000


def _without_merging(data: bytes) -> bytes:
    """The module with the flags cleared that let a linker fold equal strings, which moves them."""
    changed = bytearray(data)
    elf = Elf(data, name="x")
    (start,) = struct.unpack_from("<Q", data, 0x28)
    for section in elf.sections:
        struct.pack_into("<Q", changed, start + 64 * section.index + 8, section.flags & ~SHF_MERGE_STRINGS)
    return bytes(changed)


@pytest.mark.kernels
@pytest.mark.parametrize(("architecture", "arch"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_a_module_says_what_it_is(architecture: str, arch: str) -> None:
    module = Module(shipped(architecture)["virtio_pci"], name="x")
    assert (module.name, module.elf.arch) == ("virtio_pci", arch)
    assert module.release == f"{VERSION}-cloud-{architecture}"
    assert module.modinfo["license"] == "GPL"
    assert module.elf.build_id is not None
    assert module.btf is not None
    assert bytes(module.btf[:2]) == b"\x9f\xeb"


@pytest.mark.kernels
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_symbols_are_those_of_nm(architecture: str, tmp_path: Path) -> None:
    """Names and letters as nm gives them, and every undefined symbol at an address of its own."""
    data = shipped(architecture)["virtio_pci"]
    (tmp_path / "x.ko").write_bytes(data)
    output = subprocess.run(["nm", "x.ko"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    expected = {(line.split()[-1], line.split()[-2]) for line in output.splitlines()}
    module = Module(data, name="x")
    loaded = {(symbol.name, symbol.kind) for symbol in module.symbols}
    sections = {section.name for section in module.elf.sections if not section.flags & SHF_ALLOC}
    assert sections
    # What nm lists beyond ours stands in sections that are not loaded, or marks where data lies between code.
    assert {name for name, kind in loaded if kind == "U"} == {name for name, kind in expected if kind == "U"}
    assert {pair for pair in loaded if pair[1] in "TtDdRrBb"} <= expected
    undefined = [symbol.address for symbol in module.symbols if symbol.kind == "U"]
    assert len(set(undefined)) == len(undefined)
    stubs = next(segment for segment in module.image.segments if segment.name == STUBS)
    assert all(stubs.address <= address < stubs.address + stubs.size for address in undefined)
    assert stubs.executable


@pytest.mark.kernels
def test_a_broken_module_is_refused(tmp_path: Path) -> None:
    data = shipped("amd64")["virtio_pci"]
    del tmp_path
    refused = 0
    for end in range(0, len(data), 4096):
        error = refusal(partial(_link, data[:end]))
        refused += error is not None
        assert error is None or error.message.startswith("x")
    assert refused > len(data) // 4096 // 2


@pytest.mark.kernels
@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data())
def test_flipped_bits_in_a_module_are_read_or_refused(data: st.DataObject) -> None:
    module = bytearray(shipped("arm64")["virtio_pci"])
    tables = len(module) - 64 * len(Elf(bytes(module), name="x").sections)
    where = st.integers(0, 63) | st.integers(tables, len(module) - 1) | st.integers(0, len(module) - 1)
    for position in data.draw(st.lists(where, min_size=1, max_size=4)):
        module[position] ^= 1 << data.draw(st.integers(0, 7))
    error = refusal(partial(_link, bytes(module)))
    assert error is None or error.message.startswith("x")


def _link(data: bytes) -> None:
    module = Module(data, name="x")
    _ = module.image, module.symbols, module.release, module.btf


def test_a_kernel_is_no_module() -> None:
    with pytest.raises(BadInput, match="not relocatable"):
        Module(synthetic.vmlinux(), name="x")


@pytest.mark.parametrize(
    ("arch", "kind", "value"),
    [
        ("x86_64", 2, 1 << 40),  # PC32
        ("x86_64", 11, 1 << 31),  # 32S
        ("x86_64", 10, 1 << 32),  # 32
        ("aarch64", 283, 1 << 28),  # CALL26
        ("aarch64", 283, 2),  # CALL26 to the middle of an instruction
        ("aarch64", 275, 1 << 40),  # ADR_PREL_PG_HI21
        ("aarch64", 261, 1 << 33),  # PREL32
    ],
)
def test_a_relocation_out_of_range_is_refused(arch: Arch, kind: int, value: int) -> None:
    with pytest.raises(relocations.Refused):
        relocations.APPLY[arch](bytearray(16), 0, kind, value, 0)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_relocation_of_an_unknown_type_is_refused(arch: Arch) -> None:
    with pytest.raises(relocations.Refused, match="type 9999 is not known"):
        relocations.APPLY[arch](bytearray(16), 0, 9999, 0, 0)


@pytest.mark.kernels
def test_a_relocation_outside_its_section_is_damage() -> None:
    data = bytearray(shipped("amd64")["virtio_pci"])
    elf = Elf(bytes(data), name="x")
    table = next(section for section in elf.sections if section.name == ".rela.text")
    struct.pack_into("<Q", data, table.offset, 1 << 40)
    with pytest.raises(DamagedInput, match="cannot be applied"):
        _ = Module(bytes(data), name="x").image


@pytest.mark.kernels
def test_memory_between_sections_is_not_there() -> None:
    module = Module(shipped("amd64")["virtio_pci"], name="x")
    last = module.image.segments[-1]
    with pytest.raises(NotMapped):
        module.image.read(last.address + last.size, 1)
