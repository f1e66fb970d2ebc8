# SPDX-License-Identifier: GPL-2.0-or-later
"""A cheap first look at a block of bytes: may there be a crash in it?

Healthy logs are long and reports are rare, so most blocks are only searched for a handful of words, of which every
complete report holds at least one; a report that is cut off stands at the end of its log, and the end is always read
in full. The search is the C library's, which lets other threads run: strstr, for which glibc has vector code, and
memmem for a block with NULs in it, where strstr would stop. Where there is no such library, Python's.
"""

import ctypes
from collections.abc import Callable

__all__ = ["BLOCK", "CONTEXT_WORDS", "WORDS", "Block", "holds_any", "may_hold_a_crash"]

BLOCK = 1 << 20

# "race:" ends "Call Trace:", "Call trace:", "backtrace:"; "unwind_backtrace" is how 32-bit ARM begins its own. The
# others begin reports that have no trace, or may have lost it.
WORDS = (
    b"race:",
    b"BUG: ",
    b"Kernel panic - not",
    b"unwind_backtrace",
    b"nable to handle kernel",
    b"Internal error: ",
    b"Oops: ",
    b"general protection fault",
    b"WARNING: CPU: ",
    b"WARNING: at ",
    b"WARNING: kernel stack ",
    b"lock held when returning",
    b"unregister_netdevice: waiting",
    b"VFS: Busy inodes",
    b"VFS: Close: file",
    b"Hardware Error]",
)
CONTEXT_WORDS = (b"Linux version ", b"leaving for legacy driver", b"virtio_blk virtio", b"virtio_net virtio")


class Block:
    """A buffer of `size` bytes whose memory the C library may look at. Keep it: making one costs."""

    def __init__(self, size: int = BLOCK) -> None:
        self._bytes = bytearray(size + 1)  # and the NUL that ends a string
        self.buffer = memoryview(self._bytes)[:size]  # to read into
        self._memory = (ctypes.c_char * (size + 1)).from_buffer(self._bytes)
        self._address = ctypes.addressof(self._memory)

    def holds_any(self, words: tuple[bytes, ...], length: int) -> bool:
        """Whether one of `words` occurs in the first `length` bytes."""
        if SEARCH is None:
            return any(self._bytes.find(word, 0, length) >= 0 for word in words)
        self._bytes[length] = 0
        return SEARCH.any_in(self._address, length, words)


def may_hold_a_crash(data: bytes) -> bool:
    """The same look at bytes that are there already."""
    return holds_any(data, WORDS)


def holds_any(data: bytes, words: tuple[bytes, ...]) -> bool:
    """Whether one of `words` occurs in `data`."""
    if SEARCH is None:
        return any(word in data for word in words)
    return SEARCH.any_in(data, len(data), words)  # a `bytes` object ends with a NUL, too


class Search:
    """The C library's functions. What they look at is an address, or a `bytes` object, with a NUL behind it."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._strstr: Callable[..., int | None] = library.strstr
        self._memmem: Callable[..., int | None] = library.memmem
        self._memchr: Callable[..., int | None] = library.memchr
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        for function, arguments in (
            (library.strstr, (pointer, ctypes.c_char_p)),
            (library.memmem, (pointer, size, ctypes.c_char_p, size)),
            (library.memchr, (pointer, ctypes.c_int, size)),
        ):
            function.restype = pointer
            function.argtypes = arguments

    def any_in(self, data: int | bytes, length: int, words: tuple[bytes, ...]) -> bool:
        """Whether one of `words` occurs in the first `length` bytes of `data`."""
        if self._memchr(data, 0, length) is None:
            return any(self._strstr(data, word) is not None for word in words)
        return any(self._memmem(data, length, word, len(word)) is not None for word in words)


def _search() -> Search | None:
    try:
        return Search()
    except (OSError, AttributeError):
        return None


SEARCH = _search()
