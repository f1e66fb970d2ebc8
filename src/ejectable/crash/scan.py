# SPDX-License-Identifier: GPL-2.0-or-later
"""A cheap first look at a block of bytes: may there be a crash in it?

Healthy logs are long and reports are rare, so most blocks are only searched for a handful of words, of which every
complete report holds at least one; a report that is cut off stands at the end of its log, and the end is always read
in full. The search is the C library's memmem, which lets other threads run; where there is none, Python's.
"""

import ctypes
from collections.abc import Callable

__all__ = ["BLOCK", "CONTEXT_WORDS", "WORDS", "Block", "may_hold_a_crash"]

BLOCK = 1 << 20

# "race:" ends "Call Trace:", "Call trace:", "backtrace:"; "unwind_backtrace" is how 32-bit ARM begins its own.
WORDS = (
    b"race:",
    b"BUG: ",
    b"WARNING: ",
    b"VFS: ",
    b"Kernel panic - not",
    b"unwind_backtrace",
    b"unregister_netdevice: waiting",
    b"Hardware Error]",
)
CONTEXT_WORDS = (b"Linux version ", b"leaving for legacy driver", b"virtio_blk virtio", b"virtio_net virtio")


class Block:
    """A buffer of `size` bytes whose memory the C library may look at. Keep it: making one costs."""

    def __init__(self, size: int = BLOCK) -> None:
        self.buffer = bytearray(size)
        self._memory = (ctypes.c_char * size).from_buffer(self.buffer)
        self._address = ctypes.addressof(self._memory)

    def holds_any(self, words: tuple[bytes, ...], length: int) -> bool:
        """Whether one of `words` occurs in the first `length` bytes."""
        if MEMMEM is None:
            return any(self.buffer.find(word, 0, length) >= 0 for word in words)
        return any(MEMMEM(self._address, length, word, len(word)) for word in words)


def may_hold_a_crash(data: bytes) -> bool:
    """The same look at bytes that are there already."""
    if MEMMEM is None:
        return any(word in data for word in WORDS)
    return any(MEMMEM(data, len(data), word, len(word)) for word in WORDS)


def _memmem() -> Callable[..., int | None] | None:
    try:
        function = ctypes.CDLL(None).memmem
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    found: Callable[..., int | None] = function
    return found


MEMMEM = _memmem()
