# SPDX-License-Identifier: GPL-2.0-or-later
"""The EFI zboot image, vmlinuz.efi: a PE program that unpacks the kernel it carries.

Layout: drivers/firmware/efi/libstub/zboot-header.S (since v6.1): "MZ", at 4 "zimg", at 8 the offset and at 12
the size of the packed kernel, at 24 the name of its compression.
"""

import struct

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import Compression, Limits, decompress, sniff
from ejectable.kernel.formats import arm64
from ejectable.kernel.formats.packed import Packed

__all__ = ["recognise"]

HEADER = struct.Struct("<4s4sII8x32s")
PE_POINTER = 0x3C
PE_MACHINES = {0xAA64: "aarch64", 0x8664: "x86_64"}


def recognise(data: memoryview, name: str) -> Packed | None:
    """A zboot image of an arm64 kernel; `None` if it is something else."""
    if len(data) < 0x40 or bytes(data[:2]) != b"MZ" or bytes(data[4:8]) != b"zimg":
        return None
    _, _, offset, size, _ = HEADER.unpack_from(data)
    _check_machine(data, name)
    if offset + size > len(data):
        raise DamagedInput(
            f"cut off: its header promises a payload of {size} bytes, the file has {len(data)} bytes in all",
            path=name,
            offset=offset,
        )
    payload = data[offset : offset + size]
    compression = sniff(bytes(payload[:16]))
    if compression is Compression.NONE:
        raise DamagedInput("its payload is in no known compression", path=name, offset=offset)
    # The size of what it unpacks to follows the payload, or ends it (gzip).
    after = data[offset + size : offset + size + 4]

    def unpack(limits: Limits) -> memoryview:
        tail = payload[-4:] if compression is Compression.GZIP or len(after) < 4 else after
        unpacked = decompress(payload, limits.in_memory, name=name, size=int.from_bytes(tail, "little"))
        if arm64.recognise(memoryview(unpacked), name) is None:
            raise DamagedInput("its payload is no arm64 kernel image", path=name, offset=offset)
        return memoryview(unpacked)

    return Packed(format="zboot", arch="aarch64", compression=compression, version=None, unpack=unpack)


def _check_machine(data: memoryview, name: str) -> None:
    (pe,) = struct.unpack_from("<I", data, PE_POINTER)
    if pe + 6 > len(data) or bytes(data[pe : pe + 4]) != b"PE\0\0":
        raise DamagedInput("its PE header is not where it says", path=name, offset=pe)
    (machine,) = struct.unpack_from("<H", data, pe + 4)
    if PE_MACHINES.get(machine) != "aarch64":
        raise BadInput(f"a zboot kernel of PE machine {machine:#x}; of these arm64 is supported", path=name)
