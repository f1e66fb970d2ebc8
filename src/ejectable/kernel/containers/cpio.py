# SPDX-License-Identifier: GPL-2.0-or-later
"""Cpio archives in the "newc" format: initramfs images and the payload of RPM packages.

Layout: Documentation/driver-api/early-userspace/buffer-format.rst. An initramfs is any number of such archives in
a row, each packed or not, with zeroes between them.
"""

import re
from collections.abc import Generator, Iterator
from typing import BinaryIO

from ejectable.errors import DamagedInput
from ejectable.intake import Compression, beyond, open_decompressed, sniff
from ejectable.kernel.containers.archive import Entry, clean_name, entry_of
from ejectable.kernel.containers.exact import Exact

__all__ = ["MAGICS", "entries", "initramfs_entries"]

MAGICS = (b"070701", b"070702")  # the second one has checksums, which the kernel checks and we need not
STRIPPED = b"07070X"  # rpm's form for files of 4 GiB and more
HEADER = 110
MOST_NAME = 4096 + 1  # PATH_MAX
HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]*")
TRAILER = "TRAILER!!!"
S_IFMT, S_IFREG = 0o170000, 0o100000
MOST_NESTED = 4


def entries(stream: BinaryIO, *, name: str, limit: int) -> Iterator[Entry]:
    """The regular files of one archive; raises `DamagedInput` where it is broken, cut off or too large."""
    source = Exact(stream, name=name, limit=limit)
    yield from _archive(source, source.take(6, "the header of a cpio member"))


def _archive(source: Exact, magic: bytes) -> Iterator[Entry]:
    """The regular files from `source`, of which the first magic was read already, up to the trailer."""
    origin = source.position - len(magic)
    while True:
        start = source.position - len(magic)
        if magic == STRIPPED:
            raise DamagedInput("a package with files of 4 GiB and more, which no kernel has", path=source.name)
        if magic not in MAGICS:
            raise DamagedInput("the header of a cpio member is damaged", path=source.name, offset=start)
        fields = _fields(source.take(HEADER - 6, "the header of a cpio member"), source.name, start)
        mode, links, size, name_size = fields[1], fields[4], fields[6], fields[11]
        if not 0 < name_size <= MOST_NAME:
            raise DamagedInput("the name of a cpio member is absurdly long", path=source.name, offset=start)
        raw = source.take(name_size, "the name of a cpio member")
        member = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
        source.skip(-(source.position - origin) % 4, "the padding of a cpio member")
        if member == TRAILER and not size:
            return
        entry, rest = entry_of(source, clean_name(member), size)
        # Of a file with several names only the last has the content.
        if mode & S_IFMT == S_IFREG and (size or links < 2):
            yield entry
        rest()
        source.skip(-(source.position - origin) % 4, "the padding of a cpio member")
        magic = source.take(6, "the header of a cpio member")


def _fields(header: bytes, name: str, offset: int) -> list[int]:
    # Python takes a sign, blanks and underscores for parts of a number.
    if not HEXADECIMAL.fullmatch(header):
        raise DamagedInput("the header of a cpio member is damaged", path=name, offset=offset)
    return [int(header[at : at + 8], 16) for at in range(0, len(header), 8)]


def initramfs_entries(stream: BinaryIO, *, name: str, limit: int, nested: int = 0) -> Generator[Entry, None, int]:
    """The regular files of all the archives in a row, packed or not; at the end, how many bytes they unpacked to."""
    from io import BufferedReader

    buffered = stream if isinstance(stream, BufferedReader) else BufferedReader(stream)  # type: ignore[type-var]
    source = Exact(buffered, name=name, limit=limit)
    used = 0  # by the streams before `source`
    while True:
        # The kernel accepts zeroes before every archive (init/initramfs.c, unpack_to_rootfs).
        head = buffered.peek(16)[:16]
        while head and not head[0]:
            window = buffered.peek(1 << 16)[: 1 << 16]
            source.skip(len(window) - len(window.lstrip(b"\0")), "the padding between archives")
            head = buffered.peek(16)[:16]
        if not head:
            return used + source.position
        if head[:6] in MAGICS:
            yield from _archive(source, source.take(6, "the header of a cpio member"))
        elif sniff(head) is not Compression.NONE and nested < MOST_NESTED:
            inner = open_decompressed(buffered, name=name)
            used += source.position
            used += yield from initramfs_entries(inner, name=name, limit=limit - used, nested=nested + 1)
            buffered = BufferedReader(beyond(inner, buffered))  # type: ignore[type-var]
            source = Exact(buffered, name=name, limit=limit - used)
        elif used + source.position:
            # A boot configuration may be appended (Documentation/admin-guide/bootconfig.rst); of anything else the
            # kernel complains, and boots with the archives before it.
            return used + source.position
        else:
            raise DamagedInput("neither a cpio archive nor a packed one", path=name, offset=source.position)
