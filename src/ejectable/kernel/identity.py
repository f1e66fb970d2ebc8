# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel says of itself, found in its bytes without symbols: banner, release, build-id."""

import re
import struct
from collections.abc import Iterator

from ejectable.kernel.formats.elf import NT_GNU_BUILD_ID, notes
from ejectable.kernel.program import searchable

__all__ = ["banner_in", "build_id_in", "release_of"]

# init/version-timestamp.c, linux_banner: "Linux version RELEASE (COMPILER) VERSION\n"
BANNER = b"Linux version "
MOST_BANNER = 1024
BUILD_NUMBER = re.compile(r"#\d")
RELEASE = re.compile(r"\d+\.\d+[^\s/]*")
NOTE_HEAD = struct.pack("<I", 4)
GNU_NOTE = struct.pack("<I", NT_GNU_BUILD_ID) + b"GNU\0"
BUILD_ID_SIZES = range(8, 65)
ELF_MAGIC, LITTLE_ENDIAN = b"\x7fELF", 1
# By EI_CLASS: the header from e_entry on, and of a segment its offset and size in the file.
ELF_HEADERS = {1: struct.Struct("<24x3I I6H"), 2: struct.Struct("<24x3Q I6H")}
SEGMENTS = {1: struct.Struct("<4xI8xI12x"), 2: struct.Struct("<8xQ16xQ16x")}
MOST_SEGMENTS = 64
MOST_EMBEDDED = 4 << 20  # a vDSO takes some pages


def release_of(text: str | None) -> str | None:
    """The release, `uname -r`, at the start of a version text, with or without "Linux version " before it."""
    if not text:
        return None
    found = RELEASE.match(text.removeprefix(BANNER.decode()))
    return found[0] if found else None


def banner_in(raw: memoryview) -> str | None:
    """The banner in an unpacked kernel: the first that is followed by a release.

    Since v6.1 there are two: the weak one of init/version.c, without the number of the build, which the one of
    init/version-timestamp.c replaces.
    """
    haystack = searchable(raw)
    weak = None
    position = haystack.find(BANNER)
    while position >= 0:
        line = haystack[position : position + MOST_BANNER].split(b"\n", 1)[0].split(b"\0", 1)[0]
        text = line.decode("utf-8", "replace")
        if release_of(text):
            if "#" not in text or BUILD_NUMBER.search(text):
                return text
            weak = weak or text
        position = haystack.find(BANNER, position + 1)
    return weak


def build_id_in(raw: memoryview) -> str | None:
    """The GNU build-id of a flat image, in lower-case hex, by the shape of its ELF note.

    The vDSOs, and whatever else is linked into a kernel as a whole ELF file, have notes of their own: those are not the
    kernel's. `None` where more than one is left over.
    """
    haystack = searchable(raw)
    files = list(_embedded(haystack))
    found: dict[str, None] = {}
    position = haystack.find(GNU_NOTE)
    while position >= 0:
        start = position - 8
        if start >= 0 and haystack[start : start + 4] == NOTE_HEAD and not any(start in file for file in files):
            size = int.from_bytes(haystack[start + 4 : start + 8], "little")
            if size in BUILD_ID_SIZES:
                for owner, kind, text in notes(raw[start : start + 12 + 4 + size + 3 & ~3]):
                    if owner == b"GNU" and kind == NT_GNU_BUILD_ID:
                        found.setdefault(text.hex())
        position = haystack.find(GNU_NOTE, position + 1)
    return next(iter(found)) if len(found) == 1 else None


def _embedded(haystack: bytes | bytearray) -> Iterator[range]:
    """Where ELF files lie inside of an image: from their first byte to the end of what their headers name."""
    position = haystack.find(ELF_MAGIC)
    while position >= 0:
        kind, order = haystack[position + 4 : position + 6].ljust(2, b"\0")
        header = ELF_HEADERS.get(kind)
        if header is not None and order == LITTLE_ENDIAN and position + header.size <= len(haystack):
            # include/uapi/linux/elf.h, struct elf64_hdr: where program and section headers are, and their sizes.
            _, programs, sections, _, _, _, program_count, section_size, section_count, _ = header.unpack_from(
                haystack, position
            )
            segment = SEGMENTS[kind]
            ends = [position + sections + section_size * section_count, position + header.size]
            for number in range(min(program_count, MOST_SEGMENTS)):
                at = position + programs + number * segment.size
                if at + segment.size <= len(haystack):
                    offset, length = segment.unpack_from(haystack, at)
                    ends.append(position + offset + length)
            yield range(position, min(max(ends), position + MOST_EMBEDDED))
        position = haystack.find(ELF_MAGIC, position + 4)
