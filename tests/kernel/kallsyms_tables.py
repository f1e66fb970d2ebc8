# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes kallsyms tables in every order and encoding that the kernel has had, for the reader to find.

An encoder of the tests' own, after the description in scripts/kallsyms.c: what the reader takes apart was put
together by somebody who knows nothing of the reader.
"""

import struct
from typing import Literal

from ejectable.kernel.program import Image, Segment

__all__ = ["BASE", "LAYOUTS", "TABLES_AT", "Encoding", "Entry", "Layout", "image_of", "many", "tables"]

Layout = Literal["v5.4", "v6.2", "v6.4", "v7.0"]
Encoding = Literal["base", "percpu", "absolute", "place"]
LAYOUTS: tuple[tuple[Layout, Encoding], ...] = (
    ("v5.4", "base"), ("v5.4", "percpu"), ("v5.4", "absolute"),
    ("v6.2", "base"), ("v6.2", "percpu"), ("v6.2", "absolute"),
    ("v6.4", "base"), ("v6.4", "percpu"), ("v6.4", "absolute"),
    ("v7.0", "place"),
)  # fmt: skip
BASE = 0xFFFF_FFFF_8100_0000
TABLES_AT = 0x10_0000  # behind the code
SIZE = 0x40_0000
Entry = tuple[int, str, str]  # address, kind, name
PHRASES = (
    "virtio_",
    "pci_",
    "del_",
    "_vq",
    "Tvp_",
    "tvp_",
    "init",
    "probe",
    "remove",
    "sys_",
    "device",
    "t_",
    "T_",
    "func_",
)


def many(count: int = 700) -> list[Entry]:
    """Symbols as a kernel has them: per-CPU ones at low addresses first, aliases, clones, one very long name."""
    found: list[Entry] = [(0, "A", "fixed_percpu_data"), (0x1000, "A", "cpu_debug_store")]
    found += [(BASE, "T", "_text"), (BASE, "T", "startup_64")]
    for number in range(count):
        address = BASE + 0x1000 + 0x40 * number
        found.append((address, "tTdDrRbBW"[number % 9], f"func_{number:04d}_virtio_pci_device{number * 7919 % 1000}"))
    end = BASE + 0x1000 + 0x40 * count
    found += [
        (end, "T", "vp_del_vqs"),
        (end + 0x220, "t", "vp_del_vqs.cold"),
        (end + 0x230, "t", "vp_find_vqs_msix.llvm.1234567890"),
        (end + 0x300, "t", "vp_find_vqs_msix.llvm.1234567890.cold"),
        (end + 0x310, "t", "vp_request.constprop.0"),
        (end + 0x310, "t", "vp_request_alias"),
        (end + 0x400, "T", "vp_del_vqs_all"),
        (end + 0x500, "t", "z" * 300),
        (end + 0x600, "B", "_end"),
    ]
    return found


def _tokens(entries: list[Entry]) -> tuple[list[bytes], dict[int, bytes]]:
    used = {ord(character) for _, kind, name in entries for character in kind + name} | set(b"0123456789")
    phrases = iter(PHRASES)
    table = [bytes([code]) if code in used else next(phrases, "").encode() for code in range(256)]
    return table, {code: token for code, token in enumerate(table) if token}


def _compress(text: bytes, by_length: list[tuple[int, bytes]]) -> bytes:
    codes = bytearray()
    while text:
        code, token = next((code, token) for code, token in by_length if text.startswith(token))
        codes.append(code)
        text = text[len(token) :]
    return bytes(codes)


def _length(size: int) -> bytes:
    return bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)


def tables(
    entries: list[Entry], layout: Layout, encoding: Encoding, *, at: int, base: int = BASE, alignment: int = 8
) -> bytes:
    """All tables, to stand at address `at`; entries have to be sorted by address. `base` is relative_base."""
    token_list, used = _tokens(entries)
    by_length = sorted(used.items(), key=lambda item: -len(item[1]))
    names = bytearray()
    markers = []
    for number, (_, kind, name) in enumerate(entries):
        if number % 256 == 0:
            markers.append(len(names))
        codes = _compress((kind + name).encode(), by_length)
        names += _length(len(codes)) + codes
    token_table, index = bytearray(), []
    for token in token_list:
        index.append(len(token_table))
        token_table += token + b"\0"
    order = sorted(range(len(entries)), key=lambda number: (entries[number][2].encode(), number))
    sequence = b"".join(number.to_bytes(3, "big") for number in order)

    head = [struct.pack("<I", len(entries)), bytes(names), struct.pack(f"<{len(markers)}I", *markers)]
    tail = [bytes(token_table), struct.pack("<256H", *index)]

    def joined(parts: list[bytes]) -> bytes:
        return b"".join(_padded(part, alignment) for part in parts)

    def numbers(where: int) -> list[bytes]:
        addresses = [address for address, _, _ in entries]
        if encoding == "absolute":
            return [struct.pack(f"<{len(addresses)}Q", *addresses)]
        if encoding == "percpu":
            words = [a if a < 1 << 31 else base - 1 - a for a in addresses]
            return [struct.pack(f"<{len(words)}i", *words), struct.pack("<Q", base)]
        if encoding == "base":
            return [struct.pack(f"<{len(addresses)}I", *(a - base for a in addresses)), struct.pack("<Q", base)]
        return [struct.pack(f"<{len(addresses)}i", *(a - (where + 4 * i) for i, a in enumerate(addresses)))]

    if layout == "v5.4":
        return joined([*numbers(at), *head, *tail])
    if layout == "v6.2":
        return joined([*numbers(at), *head, sequence, *tail])
    front = joined([*head, *tail])
    return front + joined([*numbers(at + len(front)), sequence])


def image_of(blob: bytes, *, base: int = BASE) -> Image:
    """A kernel with these tables behind its code, and something that is no kallsyms before and after."""
    noise = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00" * 3
    data = bytearray(TABLES_AT) + blob + noise + bytes(64)
    data[0x2000 : 0x2000 + len(noise)] = noise
    return Image("x86_64", [Segment(base, memoryview(bytes(data)), SIZE, True, "LOAD 0")])
