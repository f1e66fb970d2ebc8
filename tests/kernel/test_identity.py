# SPDX-License-Identifier: GPL-2.0-or-later
"""An image says who it is, and what is linked into it as a file of its own does not speak for it."""

import struct
import subprocess
from pathlib import Path

import pytest

from corpus.archive import fetch
from ejectable.errors import Missing
from ejectable.kernel.formats.arm64_base import relocated
from ejectable.kernel.formats.elf import notes
from ejectable.kernel.identity import build_id_in
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.open import open_kernels
from tests.kernel.synthetic import absent

OWN, VDSO = b"\x11" * 20, b"\x22" * 20


def note(build_id: bytes) -> bytes:
    return struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id


@pytest.fixture(scope="module")
def vdso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("vdso")
    (folder / "v.c").write_text("int f(void) { return 1; }")
    command = ["gcc", "-shared", "-nostdlib", "-fPIC", f"-Wl,--build-id=0x{VDSO.hex()}", "-o", "v.so", "v.c"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "v.so").read_bytes()


def test_the_build_id_is_not_that_of_a_vdso(vdso: bytes) -> None:
    assert build_id_in(memoryview(bytes(64) + note(VDSO))) == VDSO.hex()
    for parts in ((vdso, note(OWN)), (note(OWN), vdso), (vdso, note(OWN), vdso)):
        image = bytes(4096).join((b"MZ", *(part.ljust(-(-len(part) // 4096) * 4096, b"\0") for part in parts), b""))
        assert build_id_in(memoryview(image)) == OWN.hex()
    assert build_id_in(memoryview(bytes(4096) + vdso)) is None


def test_of_two_build_ids_none_is_the_kernels() -> None:
    assert build_id_in(memoryview(note(OWN) + bytes(64) + note(VDSO))) is None
    assert build_id_in(memoryview(note(OWN) + bytes(64) + note(OWN))) == OWN.hex()


def test_a_damaged_file_inside_of_an_image_is_no_error(vdso: bytes) -> None:
    for cut in range(0, 200, 7):
        build_id_in(memoryview(note(OWN) + vdso[:cut]))
        build_id_in(memoryview(vdso[:24] + b"\xff" * cut + vdso[24 + cut :]))


@pytest.fixture(scope="module")
def arm64() -> Path:
    try:
        return fetch("linux-image-6.12.117+deb12-cloud-arm64", "arm64")
    except Missing as error:
        absent(error.message)


@pytest.mark.kernels
def test_the_build_id_of_debians_arm64_image_is_the_one_between_its_own_marks(arm64: Path) -> None:
    kernel = next(iter(open_kernels(str(arm64))))
    vmlinux = kernel.vmlinux  # type: ignore[union-attr]  # it was read
    assert vmlinux is not None
    start, stop = (vmlinux.symbols.get(name) for name in ("__start_notes", "__stop_notes"))
    assert start
    assert stop
    own = notes(memoryview(vmlinux.image.read(start.address, stop.address - start.address)))
    assert kernel.build_id == next(text.hex() for owner, kind, text in own if owner == b"GNU" and kind == 3)  # type: ignore[union-attr]


@pytest.mark.kernels
def test_the_base_of_an_arm64_image_is_found_where_nothing_points_to_its_first_byte(arm64: Path) -> None:
    """Without KALLSYMS_ALL the lowest symbol, and the lowest relocation, is _stext, 64 KiB behind _text."""
    kernel = next(iter(open_kernels(str(arm64))))
    raw = kernel.raw  # type: ignore[union-attr]  # it was read
    assert raw is not None
    plain, base = relocated(raw)
    assert base
    changed = bytearray(raw)
    entry = struct.pack("<QQ", 0x403, base)
    position = changed.find(entry)
    assert position > 0
    while position >= 0:
        changed[position + 8 : position + 16] = (base + (1 << 16)).to_bytes(8, "little")
        position = changed.find(entry, position + 16)
    again, found = relocated(memoryview(bytes(changed)))
    assert found == base
    assert again[:4096] == plain[:4096]


def opened(path: Path) -> Kernel:
    (kernel,) = open_kernels(path)
    assert isinstance(kernel, Kernel)
    return kernel


def test_a_genuine_flat_image_has_the_build_id_that_the_kernel_shows_in_sys_kernel_notes() -> None:
    kernel = opened(fetch("linux-image-6.12.117+deb12-cloud-arm64", "arm64"))
    assert (kernel.arch, kernel.format) == ("aarch64", "Image")
    assert kernel.vmlinux is not None
    symbols = kernel.vmlinux.symbols
    start, stop = symbols.get("__start_notes"), symbols.get("__stop_notes")  # kernel/ksysfs.c shows what is between
    assert start is not None
    assert stop is not None
    shown = notes(memoryview(kernel.vmlinux.image.read(start.address, stop.address - start.address)))
    assert kernel.build_id in [text.hex() for owner, number, text in shown if (owner, number) == (b"GNU", 3)]


def test_a_genuine_flat_image_without_variables_among_its_symbols_gives_them_all() -> None:
    # Debian's 6.1 has no CONFIG_KALLSYMS_ALL: the first symbol is _stext, and their base is in .rela.dyn only.
    kernel = opened(fetch("linux-image-6.1.0-50-cloud-arm64", "arm64"))
    assert kernel.vmlinux is not None
    symbols = kernel.vmlinux.symbols
    assert symbols.get("__start_notes") is None
    first = symbols.get("_stext")
    assert first is not None
    assert first.address % 0x1_0000 == 0
    assert len(symbols) > 40_000
