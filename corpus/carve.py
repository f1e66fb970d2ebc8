# SPDX-License-Identifier: GPL-2.0-or-later
"""The BTF of a packaged kernel, cut out of its image by means of its own: builds must not rest on what they test."""

import struct
import subprocess
from pathlib import Path

from ejectable.errors import Missing

__all__ = ["btf_of_package", "member_of_package"]

# struct btf_header (include/uapi/linux/btf.h): magic 0xeb9f, version 1, flags 0, hdr_len 24, then four 32-bit numbers.
BTF_START = bytes.fromhex("9feb0100") + struct.pack("<I", 24)


def member_of_package(deb: Path, pattern: str) -> bytes:
    """The contents of the one file of a package whose path matches a shell `pattern`, such as ./boot/vmlinuz-*."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as outer:
        inner = subprocess.run(
            ["tar", "xO", "--wildcards", pattern], stdin=outer.stdout, check=False, capture_output=True
        )
    if inner.returncode or not inner.stdout:
        raise Missing(f"{deb.name} holds no {pattern}.", hint="Is it a kernel image package?")
    return inner.stdout


def _unpacked(image: bytes) -> bytes:
    """The payload of a bzImage; an arm64 Image as it is."""
    if image[0x202:0x206] != b"HdrS":
        return image
    # Documentation/arch/x86/boot.rst: setup_sects, payload_offset and payload_length of the real-mode header.
    start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    payload = image[start : start + struct.unpack_from("<I", image, 0x24C)[0]]
    for magic, command in (
        (b"\x02\x21\x4c\x18", ["lz4", "-dc", "-"]),
        (b"\x28\xb5\x2f\xfd", ["zstd", "-dcq", "-"]),
        (b"\xfd7zXZ", ["xz", "-dc", "-"]),
        (b"\x1f\x8b", ["gzip", "-dc", "-"]),
    ):
        if payload.startswith(magic):
            # The size that the kernel's build appends is garbage to the tools: the data comes all the same.
            return subprocess.run(command, input=payload, check=False, capture_output=True).stdout
    raise Missing("The payload of this bzImage is packed in a way that is not expected of Debian.")


def btf_of_package(deb: Path) -> bytes:
    """The raw BTF of the kernel in a linux-image package."""
    data = _unpacked(member_of_package(deb, "./boot/vmlinuz-*"))
    best = b""
    at = data.find(BTF_START)
    while at >= 0:
        type_off, type_len, str_off, str_len = struct.unpack_from("<4I", data, at + 8)
        end = at + 24 + str_off + str_len
        if type_off == 0 and str_off >= type_len and end <= len(data) and end - at > len(best):
            best = data[at:end]
        at = data.find(BTF_START, at + 1)
    if len(best) < 1 << 20:
        raise Missing(f"No BTF was found in {deb.name}.", hint="Debian's kernels have had it since 5.10.")
    return best
