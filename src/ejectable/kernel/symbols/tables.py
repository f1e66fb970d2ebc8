# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the other tables of kallsyms lie around the token table, in every order that the kernel has had.

    until v6.1      offsets, relative_base, num_syms, names, markers, token_table, token_index
    v6.2, v6.3      the same with seqs_of_names between markers and token_table (60443c88f3a8 "kallsyms: Improve
                    the performance of kallsyms_lookup_name()")
    since v6.4      num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names
                    (404bad70fcf7 "scripts/kallsyms: change the output order")
    since v7.0      the same without relative_base (a081b5789255 "kallsyms: Get rid of kallsyms relative base")

What an entry of `offsets` means has changed too, see `Addresses`. No version is asked: each table is told by what it
must be, and an order counts only if all tables agree.
"""

import itertools
import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from ejectable.errors import DamagedInput
from ejectable.kernel.program import Image
from ejectable.kernel.symbols.tokens import Tokens

__all__ = ["Addresses", "Tables", "name_at", "tables_around"]

BLOCK = 256  # symbols between two markers
MOST_SYMBOLS = 1 << 21  # ten times what a large distribution kernel has
MOST_NAME = 0x3FFF  # two bytes of length since v6.1; one before
# Two bytes at least for a name, its length and one code; KSYM_NAME_LEN is 512 since v6.1.
LEAST_BLOCK, MOST_BLOCK = 2 * BLOCK, 514 * BLOCK
ALIGNMENTS = (8, 4)
MOST_STEPS = 1 << 15
# Markers end at the token table, or 3 bytes per symbol before it.
REACHES = (1 << 15, 4 * MOST_SYMBOLS)
RUN = 1 << 12
MOST_FITTING = 16
KERNEL_HALF = 1 << 63
SAMPLES = 1024
ZERO = b"\0\0\0\0"
FIRST_BYTE = (b"_text", b"_head")

Encoding = Literal["absolute", "base", "percpu", "place"]


class Addresses:
    """The addresses of the symbols by index, ascending.

    - `absolute`: 64-bit addresses, kallsyms_addresses, without CONFIG_KALLSYMS_BASE_RELATIVE (an option until v6.11)
    - `percpu`: signed 32-bit numbers; a negative one counts down from relative_base - 1, the others are absolute,
      as x86-64's per-CPU variables were until v6.14 (CONFIG_KALLSYMS_ABSOLUTE_PERCPU)
    - `base`: unsigned 32-bit offsets from relative_base
    - `place`: signed 32-bit offsets from where they stand, since v7.0
    """

    def __init__(self, encoding: Encoding, words: memoryview, base: int) -> None:
        self.encoding = encoding
        self.base = base  # "place": where the table itself stands
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> int:
        word: int = self._words[index]
        if self.encoding == "absolute":
            return word
        if self.encoding == "base":
            return self.base + word
        if self.encoding == "place":
            return self.base + 4 * index + word
        return word if word >= 0 else self.base - 1 - word


class Tables(msgspec.Struct, frozen=True):
    """All of kallsyms."""

    count: int
    names: memoryview
    markers: memoryview  # of every 256th name, in bytes into `names`
    tokens: tuple[bytes, ...]
    addresses: Addresses
    sequence: memoryview | None  # indexes of symbols in the order of their names, three bytes each, big-endian
    wide: bool  # lengths above 127 take two bytes (since v6.1)


class _Names(msgspec.Struct, frozen=True):
    """What stands before the token table."""

    count: int
    num_syms: int  # where, in bytes into the segment
    names: int
    markers: int
    blocks: int
    sequence: int | None
    wide: bool
    alignment: int


def tables_around(image: Image, tokens: Tokens) -> Tables | None:
    """The tables that belong to a token table; `None` if they are not there. Raises `DamagedInput`."""
    for found in _names_before(tokens):
        addresses, sequence = _addresses(image, tokens, found)
        if addresses is None:
            continue
        # A position-independent arm64 kernel whose relocations were not applied has a base of 0. The base is the
        # lowest symbol's address, and only if that is the image's first byte do we know it.
        data = tokens.segment.data
        names = data[found.names : found.markers]
        markers = data[found.markers : found.markers + 4 * found.blocks].cast("I")
        order = None if sequence is None else data[sequence : sequence + 3 * found.count]
        tables = Tables(found.count, names, markers, tokens.strings, addresses, order, found.wide)
        if not addresses.base and addresses.encoding == "base":
            if name_at(tables, 0)[1:] not in FIRST_BYTE:
                continue
            addresses.base = image.segments[0].address
        return tables if order is None or _is_sorted(tables, order) else msgspec.structs.replace(tables, sequence=None)
    return None


def _align(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


# --- names and markers ---------------------------------------------------------------------------------------------


def _names_before(tokens: Tokens) -> Iterator[_Names]:
    """Names, whose markers are the one table of growing 32-bit numbers that starts with 0 and ends where it should."""
    data = tokens.segment.data
    tried = 0
    for markers in _zeros_before(tokens):
        for blocks, alignment in _fitting(data, markers, tokens.start):
            tried += 1
            if tried > MOST_FITTING:
                return
            after = _align(markers + 4 * blocks, alignment)
            sequence = after if after < tokens.start else None
            for names, count, wide in _starts(data, markers, blocks, alignment):
                if sequence is None or _align(after + 3 * count, alignment) == tokens.start:
                    yield _Names(count, names - alignment, names, markers, blocks, sequence, wide, alignment)


def _zeros_before(tokens: Tokens) -> Iterator[int]:
    """Where 32 zero bits stand before the token table, the nearest first; of many in a row the last few."""
    data, end, steps = tokens.segment.data, tokens.start, 0
    for reach in REACHES:
        low = max(0, tokens.start - reach)
        low -= low % 8
        area = bytes(data[low:end])
        position = len(area)
        while steps < MOST_STEPS:
            zero = area.rfind(ZERO, 0, position)
            if zero < 0:
                break
            position = zero + 3
            steps += 1
            if (low + zero) % 4 == 0:
                yield low + zero
                # The second marker is not zero: behind the first there is at most padding, where it is the only one.
                if area[zero : zero + 16] == bytes(16):
                    start = max(0, zero - RUN)
                    position = start + len(area[start:zero].rstrip(b"\0")) + 3
        end = low + 3


def _fitting(data: memoryview, markers: int, end: int) -> Iterator[tuple[int, int]]:
    """How many markers there may be, and the alignment of the tables, so that all room until `end` is accounted for."""
    whole = _run(data, markers, end)
    # The table may seem to go on into the next one by accident.
    for blocks in range(whole, max(0, whole - 3), -1):
        for alignment in ALIGNMENTS:
            rest = end - _align(markers + 4 * blocks, alignment)
            if not rest or 3 * BLOCK * (blocks - 1) < rest <= 3 * BLOCK * blocks + alignment:
                yield blocks, alignment


def _run(data: memoryview, start: int, end: int) -> int:
    """How many numbers from `start` on grow as markers do."""
    length = 1
    previous = 0
    for (word,) in struct.iter_unpack("<I", data[start + 4 : end - (end - start) % 4]):
        if not LEAST_BLOCK <= word - previous <= MOST_BLOCK:
            break
        previous = word
        length += 1
    return length


def _starts(data: memoryview, markers: int, blocks: int, alignment: int) -> Iterator[tuple[int, int, bool]]:
    """Where the names may start, how many there are, and how their lengths are written.

    num_syms stands before them and has to fit the number of markers; the names have to end where the markers begin.
    """
    last = int.from_bytes(data[markers + 4 * blocks - 4 : markers + 4 * blocks], "little")
    nearest = (markers - last) // alignment * alignment
    for names in range(nearest, max(alignment, nearest - MOST_BLOCK), -alignment):
        count = int.from_bytes(data[names - alignment : names], "little")
        if not BLOCK * (blocks - 1) < count <= min(BLOCK * blocks, MOST_SYMBOLS):
            continue
        for wide in (True, False):
            end = _skip(data, names + last, markers, count - BLOCK * (blocks - 1), wide=wide)
            if end is None or _align(end, alignment) != markers:
                continue
            if blocks > 1:
                second = int.from_bytes(data[markers + 4 : markers + 8], "little")
                if _skip(data, names, markers, BLOCK, wide=wide) != names + second:
                    continue
            yield names, count, wide


def _skip(data: memoryview, position: int, end: int, count: int, *, wide: bool) -> int | None:
    """Where the names end after `count` of them; `None` if that is beyond `end`."""
    for _ in range(count):
        if position >= end:
            return None
        length = data[position]
        if wide and length & 0x80:
            if position + 1 >= end:
                return None
            position += 1
            length = length & 0x7F | data[position] << 7
        position += 1 + length
    return position if position <= end else None


# --- addresses -----------------------------------------------------------------------------------------------------


def _addresses(image: Image, tokens: Tokens, names: _Names) -> tuple[Addresses | None, int | None]:
    """The addresses, and where the sequence of names is, in bytes into the segment."""
    data, count, alignment = tokens.segment.data, names.count, names.alignment
    after = _align(tokens.end, alignment)
    before = names.num_syms - 8
    size = _align(4 * count, alignment)
    for start, base_at, sequence in (
        (before - size, before, names.sequence),
        (after, after + size, after + size + 8),
    ):
        found = _based(image, data, start, base_at, count)
        if found is not None:
            return found, _inside(data, sequence, 3 * count)
    place = Addresses("place", _words(data, after, count, "i"), tokens.segment.address + after)
    # A kernel's code is linked before its tables: other offsets from elsewhere start at 0 or above.
    if len(place) and place[0] < place.base and _plausible(place, image):
        return place, _inside(data, after + size, 3 * count)
    for start, sequence in ((names.num_syms - 8 * count, names.sequence), (after, after + 8 * count)):
        absolute = Addresses("absolute", _words(data, start, count, "Q"), 0)
        if _plausible(absolute, image):
            return absolute, _inside(data, sequence, 3 * count)
    return None, None


def _words(data: memoryview, start: int, count: int, code: Literal["i", "I", "Q"]) -> memoryview:
    size = 8 if code == "Q" else 4
    if start < 0 or start + size * count > len(data):
        return memoryview(b"").cast(code)
    return data[start : start + size * count].cast(code)


def _inside(data: memoryview, start: int | None, size: int) -> int | None:
    return start if start is not None and start >= 0 and start + size <= len(data) else None


def _based(image: Image, data: memoryview, start: int, base_at: int, count: int) -> Addresses | None:
    if start < 0 or base_at < 0 or base_at + 8 > len(data):
        return None
    base = int.from_bytes(data[base_at : base_at + 8], "little")
    if 0 < base < KERNEL_HALF:
        return None
    for encoding, code in (("base", "I"), ("percpu", "i")):
        words = _words(data, start, count, code)  # type: ignore[arg-type]  # mypy widens the literals
        found = Addresses(encoding, words, base or image.segments[0].address)  # type: ignore[arg-type]
        if _plausible(found, image) and (base or encoding == "base"):
            found.base = base
            return found
    return None


def _plausible(addresses: Addresses, image: Image) -> bool:
    """Whether these are addresses of symbols of this image, in ascending order."""
    count = len(addresses)
    if not count:
        return False
    step = max(1, count // SAMPLES)
    sample = [addresses[index] for index in (*range(0, count, step), count - 1)]
    if any(before > after for before, after in itertools.pairwise(sample)):
        return False
    if 2 * len(set(sample)) < len(sample):  # zeroes are in ascending order too
        return False
    low = image.segments[0].address
    high = image.segments[-1].address + image.segments[-1].size
    if not low:  # a flat image whose base is not known yet
        slack = high
        low = next((address for address in sample if address >= KERNEL_HALF), 0)
        low, high = (low, low + high + slack) if addresses.encoding != "place" else (0, high)
    # Absolute symbols and per-CPU variables are elsewhere, on x86-64 a good percent of all; some end markers too.
    inside = sum(low <= address <= high for address in sample)
    return 10 * inside >= 9 * len(sample)


# --- names ---------------------------------------------------------------------------------------------------------


def name_at(tables: Tables, index: int) -> bytes:
    """Kind (one letter) and name of a symbol; raises `DamagedInput` where the tables contradict each other."""
    names = tables.names
    try:
        position = tables.markers[index >> 8]
        for _ in range(index & 0xFF):
            length = names[position]
            if length & 0x80 and tables.wide:
                position += 1
                length = length & 0x7F | names[position] << 7
            position += 1 + length
        length = names[position]
        if length & 0x80 and tables.wide:
            position += 1
            length = length & 0x7F | names[position] << 7
    except IndexError as error:
        raise DamagedInput(f"kallsyms: the name of symbol {index} is outside of its table") from error
    return b"".join(map(tables.tokens.__getitem__, names[position + 1 : position + 1 + length]))


def _is_sorted(tables: Tables, order: memoryview) -> bool:
    """Whether a sample of the sequence is what it should be: indexes in the order of names."""
    step = max(1, tables.count // 16)
    previous = b""
    for place in range(0, tables.count, step):
        index = int.from_bytes(order[3 * place : 3 * place + 3], "big")
        if index >= tables.count:
            return False
        name = name_at(tables, index)[1:]
        if name < previous:
            return False
        previous = name
    return True
