# SPDX-License-Identifier: GPL-2.0-or-later
"""The first thing to find of kallsyms: its token table, by structure alone.

The names of a kernel's symbols are compressed with a table of 256 tokens (scripts/kallsyms.c): a code stands for
a string of one or more characters. kallsyms_token_table holds the 256 strings, NUL-terminated, one after the
other; kallsyms_token_index, right behind it, where each of them starts, as 256 16-bit offsets. Two tables that
have to agree in 256 places are not mistaken for anything else, whatever the version of the kernel.
"""

import itertools
import struct
from collections.abc import Iterator

import msgspec

from ejectable.kernel.program import Image, Segment

__all__ = ["Tokens", "find_tokens"]

TOKENS = 256
INDEX = struct.Struct(f"<{TOKENS}H")
# A character that occurs in any name keeps its own code (scripts/kallsyms.c, insert_real_symbols_in_table), and all
# digits occur in every kernel: these strings stand one after the other in every token table.
DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
FIRST_DIGIT = ord("0")
# The index has 16 bits: no token table is longer.
MOST_TABLE = 1 << 16
PADDING = 64
# So that a hostile image full of digits does not keep us busy.
MOST_CANDIDATES = 4096
MOST_TABLES = 4


class Tokens(msgspec.Struct, frozen=True):
    """A token table: `start` and `end`, in bytes into its segment, enclose the table and its index."""

    segment: Segment
    start: int
    end: int
    strings: tuple[bytes, ...]  # by code


def find_tokens(image: Image) -> Iterator[Tokens]:
    """Every token table in an image; in a sound one there is exactly one."""
    tables = 0
    for segment, position in itertools.islice(image.occurrences(DIGITS), MOST_CANDIDATES):
        found = _table_around(segment, position)
        if found is not None:
            yield found
            tables += 1
            if tables == MOST_TABLES:
                return


def _table_around(segment: Segment, digits: int) -> Tokens | None:
    """The table in which the token of the digit 0 starts at `digits`; `None` if it is none."""
    low = max(0, digits - MOST_TABLE)
    before = bytes(segment.data[low:digits])
    after = bytes(segment.data[digits : digits + MOST_TABLE + PADDING + INDEX.size])

    # Where each token starts, relative to the digit's: known from the terminators, but for the first token, before
    # which there is none. The index tells.
    starts = [0] * TOKENS
    position = len(before)
    for code in range(FIRST_DIGIT - 1, 0, -1):
        position = before.rfind(b"\0", 0, position - 1) + 1
        if not position:
            return None
        starts[code] = position - len(before)
    position = 0
    for code in range(FIRST_DIGIT, TOKENS):
        starts[code] = position
        position = after.find(b"\0", position) + 1
        if not position or position > MOST_TABLE:
            return None
    for gap in range(min(PADDING, len(after) - position - INDEX.size + 1)):
        index = INDEX.unpack_from(after, position + gap)
        start = -index[FIRST_DIGIT]
        starts[0] = start
        if index[0] == 0 and len(before) + start >= 0 and all(index[i] == starts[i] - start for i in range(TOKENS)):
            table = before[len(before) + start :] + after[:position]
            strings = tuple(table[at : table.index(b"\0", at)] for at in index)
            return Tokens(segment, digits + start, digits + position + gap + INDEX.size, strings)
    return None
