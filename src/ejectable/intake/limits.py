# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits on what is read from outside and unpacked, in bytes and counts."""

import msgspec

__all__ = ["DEFAULT_LIMITS", "GIB", "MIB", "Limits"]

MIB = 1 << 20
GIB = 1 << 30


class Limits(msgspec.Struct, frozen=True):
    """Ceilings, in bytes, on what one input may make us read or unpack."""

    # All that one input may unpack to, summed over its members.
    unpacked: int = 2 * GIB
    # One thing that is held in memory whole: a kernel image, a module, a changelog. Put together from pieces it is
    # there twice for a moment, and with all that it must stay below a gibibyte.
    in_memory: int = 448 * MIB


DEFAULT_LIMITS = Limits()
