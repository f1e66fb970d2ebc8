# SPDX-License-Identifier: GPL-2.0-or-later
"""Bounds of one run in the machine. A bound that was reached is named in `Outcome.bounds`: there is more."""

import msgspec

__all__ = ["Bounds"]


class Bounds(msgspec.Struct, frozen=True):
    """How much one run may do and remember. No function that is worth running comes near any of these."""

    instructions: int = 100_000  # a driver's removal takes some hundreds
    calls: int = 4096
    trace: int = 20_000  # addresses of instructions remembered, the last ones
    loads: int = 4096  # reads remembered, the last ones
    recent: int = 12  # pointer-sized reads that may have led to a fault
    pages: int = 8192  # of the image, of per-CPU memory and of objects: for hostile images
    heap: int = 16 << 20  # bytes of objects
    moved: int = 1 << 16  # bytes that one memset() or memcpy() moves
