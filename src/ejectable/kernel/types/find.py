# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a stripped kernel keeps its BTF: between __start_BTF and __stop_BTF, in an image without sections."""

import struct

from ejectable.kernel.program import Image

__all__ = ["find_btf"]

# struct btf_header, include/uapi/linux/btf.h: magic, version 1, no flags, a header of 24 bytes, types at its end.
START = struct.pack("<HBBII", 0xEB9F, 1, 0, 24, 0)
HEADER = struct.Struct("<HBBIIIII")
# Programs that are embedded in the kernel (kernel/bpf/preload) have BTF of their own, of some ten kilobytes; that
# of the smallest kernel configuration with BTF is above half a megabyte.
SURE = 256 << 10
LEAST_TYPE = 12


def find_btf(image: Image) -> memoryview | None:
    """The kernel's own BTF: the largest there is. `None` where there is none."""
    best: memoryview | None = None
    for segment, start in image.occurrences(START):
        found = _btf_at(segment.data, start)
        if found is not None and (best is None or len(found) > len(best)):
            best = found
        if best is not None and len(best) >= SURE:
            break
    return best


def _btf_at(data: memoryview, start: int) -> memoryview | None:
    if start + HEADER.size > len(data):
        return None
    _, _, _, size, _, type_size, string_start, string_size = HEADER.unpack_from(data, start)
    end = start + size + string_start + string_size
    if type_size < LEAST_TYPE or type_size % 4 or string_start != type_size or string_size < 2 or end > len(data):
        return None
    # The strings begin with the empty one, and the last is terminated like all others.
    if data[start + size + string_start] or data[end - 1]:
        return None
    return data[start:end]
