# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed bytes come out as they went in, or as one sentence; never more than the limit."""

import io
import lzma
import struct
import subprocess
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import DamagedInput
from ejectable.intake import Compression, decompress, open_decompressed, sniff
from ejectable.intake.compression import MAGICS
from tests.kernel.synthetic import PACKERS, pack, refusal

PACKED = [compression for compression in Compression if compression is not Compression.NONE]
MIB = 1 << 20
# lzop has no such tradition; the end of the legacy format of lzma cannot be told from what follows it.
NO_ROWS = (Compression.LZO, Compression.LZMA)


@pytest.fixture(scope="module")
def text() -> bytes:
    """Half a megabyte of something between the extremes of compressible."""
    return b"".join(struct.pack("<II", i * 2654435761 % 2**32, i) for i in range(1 << 16))


@pytest.mark.parametrize("compression", PACKED)
def test_what_the_kernels_build_packs_unpacks(compression: Compression, text: bytes) -> None:
    packed = pack(text, compression)
    assert sniff(packed[:16]) is compression
    assert decompress(packed, MIB, name="x") == text
    assert decompress(packed, MIB, name="x", size=len(text)) == text


@pytest.mark.parametrize("compression", PACKED)
def test_a_large_one_is_put_together_from_pieces(
    compression: Compression, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ejectable.intake.compression.PIECE", 1 << 12)
    packed = pack(text, compression)
    assert decompress(packed, len(text), name="x") == text
    with pytest.raises(DamagedInput, match="more than the limit"):
        decompress(packed, len(text) - 1, name="x")


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("size", [1, 4096, 500_000, 1 << 31])
def test_a_wrong_size_is_only_a_hint(compression: Compression, size: int, text: bytes) -> None:
    """LZ4's legacy frame is the exception: it has no end mark, so the size is what ends it, at a block."""
    assert decompress(pack(text, compression, with_size=False), MIB, name="x", size=size) == text


@pytest.mark.parametrize("compression", PACKED)
def test_bytes_after_the_stream_do_no_harm(compression: Compression, text: bytes) -> None:
    assert decompress(pack(text, compression) + bytes(4096), MIB, name="x") == text


@pytest.mark.parametrize("compression", PACKED)
def test_a_stream_cut_off_anywhere_is_damaged(compression: Compression, text: bytes) -> None:
    packed = pack(text, compression, with_size=False)
    for end in range(len(packed) // 7, len(packed), len(packed) // 7):
        with pytest.raises(DamagedInput, match=r"x: damaged or cut-off"):
            decompress(packed[:end], MIB, name="x")
        with pytest.raises(DamagedInput, match=r"x: damaged or cut-off"), _opened(packed[:end]) as stream:
            stream.read()


@pytest.mark.parametrize("compression", PACKED)
def test_a_bomb_ends_at_the_limit(compression: Compression) -> None:
    bomb = pack(bytes(16 * MIB), compression)
    assert len(bomb) < MIB
    with pytest.raises(DamagedInput, match="more than the limit"):
        decompress(bomb, MIB, name="x")
    with pytest.raises(DamagedInput, match="more than the limit"):
        decompress(bomb, MIB, name="x", size=1000)
    with _opened(bomb) as stream:
        assert stream.read(MIB) == bytes(MIB)


@pytest.mark.parametrize("compression", PACKED)
def test_a_file_is_read_piece_by_piece(compression: Compression, text: bytes) -> None:
    with _opened(pack(text, compression)) as stream:
        assert b"".join(iter(lambda: stream.read(10_007), b"")) == text


@pytest.mark.parametrize("compression", [c for c in PACKED if c not in NO_ROWS])
def test_streams_in_a_row_are_read_to_the_end(compression: Compression, text: bytes) -> None:
    """Journals are packed in pieces, logs are rotated with `cat`."""
    one = pack(text, compression, with_size=False)
    with _opened(one + pack(b"tail", compression, with_size=False)) as stream:
        assert stream.read() == text + b"tail"


def test_the_modern_frame_of_lz4_unpacks(text: bytes) -> None:
    packed = subprocess.run(["lz4", "-c", "-"], input=text, capture_output=True, check=True).stdout
    assert decompress(packed, MIB, name="x") == text
    with _opened(packed + packed) as stream:
        assert stream.read() == text + text


def test_a_small_legacy_lz4_frame_ends_before_its_appended_size() -> None:
    """The size of a small image looks like the head of one more block."""
    for size in (1, 100, 5000, 70_000):
        assert decompress(pack(bytes(size), Compression.LZ4), MIB, name="x") == bytes(size)


def test_a_dictionary_larger_than_the_kernels_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "preset": 0}]
    with pytest.raises(DamagedInput, match="cut-off"):
        decompress(lzma.compress(b"x", filters=filters), MIB, name="x")
    window = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=0, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=window).compressobj()
    with pytest.raises(DamagedInput, match="cut-off"):
        decompress(packer.compress(bytes(MIB)) + packer.flush(), 2 * MIB, name="x")


def test_plain_bytes_come_back_as_they_are() -> None:
    assert decompress(b"plain", 10, name="x") == b"plain"
    with _opened(b"plain") as stream:
        assert stream.read() == b"plain"
    with pytest.raises(DamagedInput, match="larger than the limit"):
        decompress(b"plain", 4, name="x")


@settings(deadline=None, derandomize=True, max_examples=150)
@given(magic=st.sampled_from([magic for magic, _ in MAGICS]), rest=st.binary(max_size=300))
def test_anything_behind_a_magic_unpacks_or_is_damaged(magic: bytes, rest: bytes) -> None:
    for unpack in (_in_memory, _piece_by_piece):
        error = refusal(partial(unpack, magic + rest))
        assert error is None or error.message.startswith("x: ")


def _in_memory(packed: bytes) -> None:
    assert len(decompress(packed, 1 << 16, name="x")) <= 1 << 16


def _piece_by_piece(packed: bytes) -> None:
    with _opened(packed) as stream:
        stream.read(1 << 16)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), compression=st.sampled_from(list(PACKERS)))
def test_a_flipped_bit_unpacks_or_is_damaged(position: int, bit: int, compression: Compression) -> None:
    packed = bytearray(pack(bytes(range(256)) * 256, compression))
    packed[position % len(packed)] ^= 1 << bit
    error = refusal(lambda: decompress(bytes(packed), MIB, name="x"))
    assert error is None or error.message.startswith("x: ")


def _opened(packed: bytes) -> "io.BufferedReader":
    stream = open_decompressed(io.BytesIO(packed), name="x")
    assert isinstance(stream, io.BufferedReader)
    return stream
