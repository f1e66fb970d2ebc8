# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernels, read as the reference tools read them: every symbol, and the types of kernel and module."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from corpus.modules import Module, vmlinux_btf
from ejectable.kernel import open_kernels
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.kernel.types import BtfTypes, load_btf
from tests.kernel.synthetic import bpftool, package_of

pytestmark = pytest.mark.kernels

SYMBOL = re.compile(r"([0-9a-f]{16}) (\S) (\S+)")
# Orders of the tables: until v6.1, and since v6.4; with per-CPU symbols at absolute addresses, and without.
RELEASES = [("6.1.0-50-cloud", "amd64"), ("6.12.117+deb12-cloud", "amd64"), ("6.12.117+deb12-cloud", "arm64")]


@pytest.mark.parametrize(("version", "architecture"), RELEASES)
def test_the_symbols_are_those_that_vmlinux_to_elf_finds(version: str, architecture: str, tmp_path: Path) -> None:
    finder = Path(sys.executable).with_name("kallsyms-finder")  # in requirements/dev.txt, as vmlinux-to-elf
    (kernel,) = open_kernels(package_of(f"{version}-{architecture}", architecture))
    assert isinstance(kernel, ImageKernel)
    # It refuses Debian's 6.1 vmlinuz, so it is given what is in there.
    image = tmp_path / "image"
    image.write_bytes(kernel.raw)
    printed = subprocess.run([finder, image], capture_output=True, text=True, check=True).stdout
    theirs = [found.groups() for line in printed.splitlines() if (found := SYMBOL.fullmatch(line))]
    mine = [(f"{symbol.address:016x}", symbol.kind, symbol.name) for symbol in kernel.vmlinux.symbols]
    assert len(mine) > 40_000
    assert sorted(mine) == sorted(theirs)


@pytest.fixture(scope="module")
def base() -> BtfTypes:
    return load_btf(vmlinux_btf(Module().release).read_bytes())


def _dumped(*arguments: object) -> list[dict[str, object]]:
    command = [bpftool(), "-j", *map(str, arguments)]
    types: list[dict[str, object]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[
        "types"
    ]
    return types


def _agree(types: BtfTypes, theirs: list[dict[str, object]], *, step: int = 1) -> int:
    """Compare each `step`th struct or union with what bpftool says; how many there were."""
    count = Counter(str(entry["name"]) for entry in theirs if entry["kind"] in ("STRUCT", "UNION"))
    compared = 0
    for entry in theirs[::step]:
        name = str(entry["name"])
        # One name may stand for several types; only the first is asked for by it.
        if entry["kind"] not in ("STRUCT", "UNION") or name == "(anon)" or count[name] > 1:
            continue
        found, members = types.struct(name), entry["members"]
        assert found is not None, name
        assert isinstance(members, list)
        assert (found.size, found.kind) == (entry["size"], str(entry["kind"]).lower()), name
        assert [(m.name or "(anon)", m.bit_offset) for m in found.members] == [
            (m["name"], m["bits_offset"]) for m in members
        ], name
        compared += 1
    return compared


def test_the_kernels_types_are_those_that_bpftool_prints(base: BtfTypes) -> None:
    theirs = _dumped("btf", "dump", "file", vmlinux_btf(Module().release))
    assert len(base) == len(theirs) + 1
    assert _agree(base, theirs, step=40) > 100


def test_split_types_of_a_module_are_those_that_bpftool_prints(base: BtfTypes) -> None:
    elf = Elf(Module().path().read_bytes(), name="virtio_pci.ko")
    section = elf.section(".BTF")
    assert section is not None
    split = load_btf(elf.content(section), base=base)
    theirs = _dumped("-B", vmlinux_btf(Module().release), "btf", "dump", "file", Module().path())
    # It prints the module's own types only, by the ids that go on from the kernel's.
    assert theirs[0]["id"] == len(base)
    assert len(split) == len(base) + len(theirs)
    assert _agree(split, theirs) > 0
    member = split.member("virtio_pci_device", "is_avq")
    assert member is not None
    assert member.type_name == "bool (*)(struct virtio_device *, unsigned int)"
