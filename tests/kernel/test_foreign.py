# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of an architecture that is not read is called by its name, and nothing safe is said of it."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable.advisories import choose
from ejectable.assess.kernels import judge_path
from ejectable.errors import BadInput
from ejectable.intake import DEFAULT_LIMITS
from ejectable.kernel.formats import recognise
from ejectable.model import Status
from tests.kernel import synthetic
from tests.kernel.synthetic import RELEASE

IDS = tuple(choose(()))


def elf(machine: int, *, wide: bool = True, little: bool = True, text: bytes = synthetic.BANNER.encode()) -> bytes:
    """An ELF file of some machine, with a kernel's banner in it."""
    order = "<" if little else ">"
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if little else 2, 1))
    return ident.ljust(16, b"\0") + struct.pack(f"{order}HHI", 2, machine, 1) + bytes(64) + text + bytes(4096)


def at(places: dict[int, bytes], size: int = 0x11000) -> bytes:
    """Zeroes with some bytes among them."""
    data = bytearray(size)
    for place, text in places.items():
        data[place : place + len(text)] = text
    return bytes(data)


def pe(machine: int, zboot: bool = False) -> bytes:
    head = {0: b"MZ", 0x3C: struct.pack("<I", 0x80), 0x80: b"PE\0\0" + struct.pack("<H", machine)}
    return at(head | ({4: b"zimg"} if zboot else {}))


BIG_ARM64 = bytearray(synthetic.arm64_image())
BIG_ARM64[24] |= 1
SMALL_X86 = bytearray(synthetic.bzimage(synthetic.vmlinux()))
SMALL_X86[0x236:0x238] = b"\0\0"
FOREIGN = {
    "riscv64": elf(243),
    "riscv64 Image": at({0x30: b"RISCV\0\0\0", 0x38: b"RSC\x05"}),
    "riscv64 zboot": pe(0x5064, zboot=True),
    "s390x": elf(22, little=False),
    "s390x bzImage": at({0x10008: b"S390EP"}),
    "ppc64le": elf(21),
    "ppc64le zImage": elf(21, text=b"\0.kernel:vmlinux.strip\0"),
    "ppc64": elf(21, little=False),
    "loongarch64": elf(258),
    "loongarch64 Image": at({0: b"MZ", 0x38: b"\xcd\x23\x82\x81"}),
    "i386": elf(3, wide=False),
    "i386 bzImage": bytes(SMALL_X86),
    "arm zImage": at({0x24: b"\x18\x28\x6f\x01"}),
    "big-endian arm64": elf(183, little=False),
    "big-endian arm64 Image": bytes(BIG_ARM64),
    "mips64": elf(8, little=False),
}
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "file": lambda data: data,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "deb": lambda data: synthetic.deb({f"boot/vmlinuz-{RELEASE}": data}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FOREIGN)
def test_an_architecture_that_is_not_read_is_named(name: str, way: str, tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(WAYS[way](FOREIGN[name]))
    arch = name.removesuffix(" Image").removesuffix(" zboot").removesuffix(" bzImage").removesuffix(" zImage")
    for place in (path, tmp_path):
        if way == "deb" and place is tmp_path:
            continue
        judged = judge_path(str(place), IDS, DEFAULT_LIMITS)
        (report,) = judged.kernels
        assert not judged.unreadable
        for finding in report.findings:
            assert finding.status is Status.UNKNOWN
            assert f"a kernel for {arch}, which is not supported" in finding.reason
            assert finding.doubts


def test_another_program_of_such_a_machine_is_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf(243, text=b"hello"))
    with pytest.raises(BadInput, match="an ELF file for riscv64, and no kernel"):
        recognise(path.read_bytes(), name="x")


def test_a_module_of_such_a_machine_is_named(tmp_path: Path) -> None:
    module = elf(243, text=b"vermagic=6.8.0 SMP mod_unload\0")
    package = synthetic.deb({f"lib/modules/{RELEASE}/kernel/drivers/virtio/virtio_pci.ko": module})
    for name, data in (("virtio_pci.ko", module), ("modules.deb", package)):
        (tmp_path / name).write_bytes(data)
        (report,) = judge_path(str(tmp_path / name), IDS, DEFAULT_LIMITS).kernels
        assert {finding.status for finding in report.findings} == {Status.UNKNOWN}
        assert all("riscv64" in finding.reason for finding in report.findings)
