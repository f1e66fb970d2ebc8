# SPDX-License-Identifier: GPL-2.0-or-later
"""Every packing of a kernel leads to the same kernel, and a broken one to one sentence."""

import struct
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import DEFAULT_LIMITS, Compression, Limits
from ejectable.kernel.formats import lay_out, recognise
from ejectable.kernel.formats.elf import Elf
from ejectable.kernel.formats.layout import rebased
from ejectable.kernel.identity import banner_in, build_id_in
from ejectable.kernel.program import NotMapped
from tests.kernel import synthetic
from tests.kernel.synthetic import refusal

SMALL = Limits(unpacked=8 << 20, in_memory=4 << 20)
PACKINGS = list(synthetic.PACKERS)


@pytest.mark.parametrize("compression", PACKINGS)
@pytest.mark.parametrize("protocol", [0x20F, 0x207], ids=["with-payload-field", "by-magic"])
def test_a_bzimage_holds_its_vmlinux(compression: Compression, protocol: int) -> None:
    """Before protocol 2.08 the header does not tell where the payload is; it is found by its magic then."""
    vmlinux = synthetic.vmlinux()
    packed = recognise(synthetic.bzimage(synthetic.pack(vmlinux, compression), protocol=protocol), name="x")
    assert (packed.format, packed.arch) == ("bzImage", "x86_64")
    assert packed.version is not None
    assert packed.version.startswith(synthetic.RELEASE)
    assert packed.unpack(DEFAULT_LIMITS) == vmlinux


def test_an_unpacked_payload_is_taken_as_it_is() -> None:
    vmlinux = synthetic.vmlinux()
    assert recognise(synthetic.bzimage(vmlinux), name="x").unpack(SMALL) == vmlinux


@pytest.mark.parametrize("compression", PACKINGS)
def test_a_whole_image_may_be_compressed(compression: Compression) -> None:
    """Image.gz and its siblings have the size appended by the build, or not by whoever packed it."""
    image = synthetic.arm64_image()
    for with_size in (True, False):
        packed = recognise(synthetic.pack(image, compression, with_size=with_size), name="x")
        assert (packed.format, packed.arch, packed.compression) == ("Image", "aarch64", compression)
        assert packed.unpack(SMALL) == image


@pytest.mark.parametrize("compression", PACKINGS)
def test_an_efi_zboot_image_holds_its_image(compression: Compression) -> None:
    image = synthetic.arm64_image()
    packed = recognise(synthetic.zboot(synthetic.pack(image, compression), compression.encode()), name="x")
    assert (packed.format, packed.arch, packed.compression) == ("zboot", "aarch64", compression)
    assert packed.unpack(SMALL) == image


def test_a_vmlinux_is_laid_out_by_its_segments_but_its_per_cpu_template_is_not() -> None:
    raw = memoryview(synthetic.vmlinux())
    unpacked = lay_out(raw, "x86_64", name="x")
    assert [segment.address for segment in unpacked.image.segments] == [synthetic.TEXT]
    assert unpacked.percpu is not None
    assert unpacked.elf is not None
    assert unpacked.elf.build_id == synthetic.BUILD_ID
    with pytest.raises(NotMapped):
        unpacked.image.read(0, 8)
    assert banner_in(raw) == synthetic.BANNER.strip()


def test_an_arm64_image_tells_its_base_and_gets_its_pointers() -> None:
    raw = memoryview(synthetic.arm64_image())
    unpacked = lay_out(raw, "aarch64", name="x")
    assert unpacked.has_base
    base = synthetic.ARM_BASE
    assert unpacked.image.segments[0].address == base
    # The last of the relocations of each word stands.
    assert unpacked.image.read(base + 0x48, 8) == struct.pack("<Q", base + 0x1000 * 497)
    assert raw[0x48:0x50] == bytes(8)
    assert build_id_in(raw) == synthetic.BUILD_ID


def test_an_arm64_image_without_relocations_waits_for_its_base() -> None:
    unpacked = lay_out(memoryview(synthetic.arm64_image(relocations=0)), "aarch64", name="x")
    assert not unpacked.has_base
    moved = rebased(unpacked, synthetic.ARM_BASE)
    assert moved.image.read(synthetic.ARM_BASE + 56, 4) == b"ARM\x64"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "expected a kernel image"),
        (b"just some text, nothing more" * 100, "expected a kernel image"),
        (synthetic.pack(b"just some text" * 1000, Compression.GZIP), "no kernel image in it"),
        (b"\x7fELF\x01\x01\x01" + bytes(100), "64-bit little-endian"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "machine number 0"),
        (b"\x7fELF", "too short"),
    ],
)
def test_what_is_no_kernel_is_refused_in_one_sentence(data: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        recognise(data, name="x")


def test_kernels_of_other_machines_are_named() -> None:
    image = bytearray(synthetic.bzimage(synthetic.vmlinux()))
    struct.pack_into("<H", image, 0x236, 0)
    with pytest.raises(BadInput, match="for i386, which is not supported"):
        recognise(bytes(image), name="x")
    arm = bytearray(synthetic.arm64_image())
    arm[24] |= 1
    with pytest.raises(BadInput, match="for big-endian arm64, which is not supported"):
        recognise(bytes(arm), name="x")


def test_a_payload_that_is_not_there_is_damage() -> None:
    image = bytearray(synthetic.bzimage(synthetic.vmlinux()))
    struct.pack_into("<I", image, 0x24C, 0x7FFF_FFFF)
    with pytest.raises(DamagedInput, match="cut off: its header promises a payload"):
        recognise(bytes(image), name="x")


def _containers() -> dict[str, bytes]:
    vmlinux, image = synthetic.vmlinux(), synthetic.arm64_image()
    made = {f"bzImage-{c}": synthetic.bzimage(synthetic.pack(vmlinux, c)) for c in PACKINGS}
    made |= {f"Image-{c}": synthetic.pack(image, c) for c in PACKINGS}
    made |= {"zboot": synthetic.zboot(synthetic.pack(image, Compression.ZSTD), b"zstd")}
    return made | {"vmlinux": vmlinux, "Image": image}


@pytest.fixture(scope="module")
def containers() -> dict[str, bytes]:
    return _containers()


def _read_all(data: bytes) -> None:
    packed = recognise(data, name="x")
    raw = packed.unpack(SMALL)
    unpacked = lay_out(raw, packed.arch, name="x")
    banner_in(raw)
    build_id_in(raw)
    if unpacked.elf is not None:
        _ = unpacked.elf.build_id, unpacked.elf.sections


def test_every_format_cut_off_at_every_4_kib_is_read_or_refused(containers: dict[str, bytes]) -> None:
    for name, data in containers.items():
        refused = 0
        for end in range(0, len(data), 4096):
            error = refusal(partial(_read_all, data[:end]))
            if error is not None:
                assert error.message.startswith("x")
                refused += 1
        assert refused, name


@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data())
def test_flipped_bits_are_read_or_refused(containers: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(containers)))
    image = bytearray(containers[name])
    # Headers are where a flipped bit does most.
    for position in data.draw(st.lists(st.integers(0, 0x700) | st.integers(0, len(image) - 1), max_size=4)):
        image[position % len(image)] ^= 1 << data.draw(st.integers(0, 7))
    error = refusal(lambda: _read_all(bytes(image)))
    assert error is None or error.message.startswith("x")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(header=st.binary(min_size=48, max_size=48), rest=st.binary(max_size=512))
def test_absurd_tables_of_segments_and_sections_are_refused(header: bytes, rest: bytes) -> None:
    data = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + header[8:] + rest

    def read() -> None:
        elf = Elf(data, name="x")
        for section in elf.sections:
            elf.content(section)
        _ = elf.loads, elf.build_id

    error = refusal(read)
    assert error is None or error.message.startswith("x")
