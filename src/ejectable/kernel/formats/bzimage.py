# SPDX-License-Identifier: GPL-2.0-or-later
"""The x86 boot image: a setup header, a small decompressor, and in it the packed vmlinux (an ELF file).

Layout: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". Offsets are from the start of the file.
"""

import struct
from collections.abc import Iterator

from ejectable.errors import DamagedInput
from ejectable.intake import Compression, Limits, decompress, sniff
from ejectable.kernel.formats.packed import Packed

__all__ = ["recognise"]

SETUP_SECTS, SIGNATURE, PROTOCOL, VERSION_POINTER = 0x1F1, 0x202, 0x206, 0x20E
PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x248, 0x24C
HEADER_END = 0x268
SECTOR = 512

# What the fallback looks for, past the setup code, where the header does not tell where the payload is.
PAYLOAD_MAGICS = (
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"\x02\x21\x4c\x18",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"\x89LZO\x00\r\n\x1a\n",
    b"\x5d\x00\x00",
    b"\x7fELF",
)
# The payload stands before the decompressor's own code, so that little comes before it that looks like one.
MOST_CANDIDATES = 16


def recognise(data: memoryview, name: str) -> Packed | None:
    """A bzImage of a 64-bit kernel; `None` if it is something else."""
    if len(data) < HEADER_END or bytes(data[SIGNATURE : SIGNATURE + 4]) != b"HdrS":
        return None
    (protocol,) = struct.unpack_from("<H", data, PROTOCOL)
    setup_end = ((data[SETUP_SECTS] or 4) + 1) * SECTOR  # 0 means 4, says boot.rst
    payload = _payload(data, protocol, setup_end, name)
    compression = sniff(bytes(payload[:16])) if payload is not None else Compression.NONE
    return Packed(
        format="bzImage",
        arch="x86_64",
        compression=compression,
        version=_version(data, setup_end),
        unpack=lambda limits: _unpack(data, payload, setup_end, limits, name),
    )


def _payload(data: memoryview, protocol: int, setup_end: int, name: str) -> memoryview | None:
    """The packed vmlinux as the header gives it; `None` where the header is too old to give it."""
    if protocol < 0x0208:
        return None
    offset, length = struct.unpack_from("<II", data, PAYLOAD_OFFSET)
    if not length:
        return None
    start = setup_end + offset
    if start + length > len(data):
        raise DamagedInput(
            f"cut off: its header promises a payload of {length} bytes, the file has {len(data)} bytes in all",
            path=name,
            offset=start,
        )
    return data[start : start + length]


def _version(data: memoryview, setup_end: int) -> str | None:
    (pointer,) = struct.unpack_from("<H", data, VERSION_POINTER)
    if not pointer or pointer + SECTOR >= min(setup_end, len(data)):
        return None
    raw = bytes(data[pointer + SECTOR : pointer + SECTOR + 512])
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace") or None


def _unpack(data: memoryview, payload: memoryview | None, setup_end: int, limits: Limits, name: str) -> memoryview:
    if payload is not None and _is_kernel(payload):
        return _unpacked(payload, limits, name)
    for candidate in _candidates(data, setup_end):
        try:
            unpacked = _unpacked(candidate, limits, name)
        except DamagedInput:
            continue
        if bytes(unpacked[:4]) == b"\x7fELF":
            return unpacked
    raise DamagedInput("no kernel was found in the boot image: no payload in a known compression", path=name)


def _is_kernel(payload: memoryview) -> bool:
    return bytes(payload[:4]) == b"\x7fELF" or sniff(bytes(payload[:16])) is not Compression.NONE


def _unpacked(payload: memoryview, limits: Limits, name: str) -> memoryview:
    if bytes(payload[:4]) == b"\x7fELF":
        return payload
    # Every payload ends in its unpacked size: gzip's own format has it there, to the others the build appends it.
    size = struct.unpack("<I", payload[-4:])[0] if len(payload) >= 4 else None
    return memoryview(decompress(payload, limits.in_memory, name=name, size=size))


def _candidates(data: memoryview, setup_end: int) -> Iterator[memoryview]:
    """Everything past the setup code that begins like a payload, in the order of the file."""
    haystack = bytes(data[setup_end:])
    found: set[int] = set()
    for magic in PAYLOAD_MAGICS:
        position = haystack.find(magic)
        while position >= 0 and len(found) < MOST_CANDIDATES:
            found.add(position)
            position = haystack.find(magic, position + 1)
    for position in sorted(found):
        yield data[setup_end + position :]
