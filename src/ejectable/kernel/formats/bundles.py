# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a boot loader takes and that carry a kernel, often with its initramfs: UKI, U-Boot, Android.

    unified kernel image    a PE program with the sections .linux and .initrd (UAPI.5, Unified Kernel Image)
    legacy uImage           include/image.h of U-Boot: a header of 64 bytes in big-endian numbers, then the image
    FIT                     a flattened devicetree whose node /images holds the images (doc/usage/fit of U-Boot)
    Android boot image      system/tools/mkbootimg/include/bootimg/bootimg.h: pages of header, kernel, ramdisk

Checksums that they carry are checked: what does not fit its own is damaged.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable

import msgspec

from ejectable.errors import DamagedInput, NotSupported
from ejectable.kernel.formats.devicetree import MAGIC as FDT_MAGIC
from ejectable.kernel.formats.devicetree import Node, parse_devicetree

__all__ = ["Bundle", "unwrap"]

UIMAGE = struct.Struct(">IIIIIIIBBBB32s")
UIMAGE_MAGIC = 0x27051956
# include/image.h of U-Boot: IH_ARCH_*, IH_TYPE_*
UIMAGE_ARCHES = {2: "arm", 3: "i386", 5: "mips", 6: "mips64", 7: "ppc", 8: "s390x", 9: "sh", 10: "sparc",
                 12: "m68k", 22: "arm64", 23: "arc", 24: "x86-64", 25: "xtensa", 26: "riscv"}  # fmt: skip
KERNEL, RAMDISK, MULTI, KERNEL_NOLOAD = 2, 3, 4, 14
FIT_ARCHES = ("arm64", "x86_64", "x86-64")
ANDROID = b"ANDROID!"
MOST_SECTIONS = 96  # of a PE image, says the specification's loader
MOST_PARTS = 16


class Bundle(msgspec.Struct, frozen=True):
    """What such a file carries: kernels and initramfs images, each with its name in the file."""

    format: str  # "UKI", "uImage", "FIT", "Android boot image"
    kernels: tuple[tuple[str, memoryview], ...]
    initramfs: tuple[tuple[str, memoryview], ...] = ()


def unwrap(data: memoryview, name: str) -> Bundle | None:
    """What is in the file; `None` if it is none of these, or carries no kernel.

    Raises `DamagedInput` where it is cut off or does not fit its checksums, `NotSupported` for another architecture.
    """
    return next((found for read in READERS if (found := read(data, name)) is not None), None)


def _part(data: memoryview, start: int, size: int, what: str, name: str) -> memoryview:
    if start + size > len(data):
        raise DamagedInput(f"cut off: its {what} has {size} bytes", path=name, offset=start)
    return data[start : start + size]


def _uki(data: memoryview, name: str) -> Bundle | None:
    if len(data) < 0x40 or bytes(data[:2]) != b"MZ":
        return None
    (pe,) = struct.unpack_from("<I", data, 0x3C)
    if pe + 24 > len(data) or bytes(data[pe : pe + 4]) != b"PE\0\0":
        return None
    count, options = struct.unpack_from("<H", data, pe + 6)[0], struct.unpack_from("<H", data, pe + 20)[0]
    table = pe + 24 + options
    found: dict[str, list[tuple[str, memoryview]]] = {".linux": [], ".initrd": []}
    for index in range(min(count, MOST_SECTIONS)):
        header = data[table + 40 * index : table + 40 * (index + 1)]
        if len(header) < 40:
            break
        section = bytes(header[:8]).rstrip(b"\0").decode("ascii", "replace")
        if section not in found:
            continue
        size, _, raw, start = struct.unpack_from("<IIII", header, 8)
        # A section is padded in the file; only a tool that does not know how long it is leaves its own size out.
        part = _part(data, start, min(size, raw) or raw, f"section {section}", name)
        found[section].append((section if not found[section] else f"{section}#{len(found[section])}", part))
    if not found[".linux"]:
        return None
    return Bundle("UKI", tuple(found[".linux"]), tuple(found[".initrd"]))


def _uimage(data: memoryview, name: str) -> Bundle | None:
    if len(data) < UIMAGE.size or int.from_bytes(data[:4], "big") != UIMAGE_MAGIC:
        return None
    _, header_sum, _, size, _, _, data_sum, _, arch, kind, _, title = UIMAGE.unpack_from(data)
    header = bytes(data[:4]) + bytes(4) + bytes(data[8:64])
    if zlib.crc32(header) != header_sum:
        raise DamagedInput("the header of the uImage does not fit its checksum", path=name)
    if kind not in (KERNEL, KERNEL_NOLOAD, MULTI):
        return None
    body = _part(data, UIMAGE.size, size, "image", name)
    if zlib.crc32(body) != data_sum:
        raise DamagedInput("the image in the uImage does not fit its checksum", path=name, offset=UIMAGE.size)
    _supported(UIMAGE_ARCHES.get(arch, f"U-Boot's architecture {arch}"), name)
    label = title.rstrip(b"\0").decode("utf-8", "replace") or "kernel"
    if kind != MULTI:
        return Bundle("uImage", ((label, body),))
    # A list of sizes that ends with 0, then the images, each padded to four bytes: kernel, ramdisk, devicetree.
    sizes = [int.from_bytes(body[at : at + 4], "big") for at in range(0, 4 * MOST_PARTS, 4)]
    sizes = sizes[: sizes.index(0)] if 0 in sizes else sizes
    start, parts = 4 * (len(sizes) + 1), []
    for number, length in enumerate(sizes):
        parts.append((f"{label}:{number}", _part(body, start, length, "image", name)))
        start += length + -length % 4
    return Bundle("uImage", tuple(parts[:1]), tuple(parts[1:2]))


def _fit(data: memoryview, name: str) -> Bundle | None:
    if bytes(data[:4]) != FDT_MAGIC:
        return None
    tree, end = parse_devicetree(data, name)
    images = tree.child("images")
    if images is None:
        return None
    kernels, initramfs = [], []
    for node in images.children:
        kind = node.text("type")
        if kind not in ("kernel", "kernel_noload", "ramdisk"):
            continue
        content = node.properties.get("data")
        if content is None:
            size, position, offset = (node.number(key) for key in ("data-size", "data-position", "data-offset"))
            if size is None or (position is None and offset is None):
                raise DamagedInput(f"its image {node.name} has no data", path=name)
            start = position if position is not None else -(-end // 4) * 4 + (offset or 0)
            content = _part(data, start, size, f"image {node.name}", name)
        _check_hashes(node, content, name)
        if kind == "ramdisk":
            initramfs.append((node.name, content))
            continue
        arch = node.text("arch")
        if arch and arch not in FIT_ARCHES:
            _supported(arch, name)
        kernels.append((node.name, content))
    return Bundle("FIT", tuple(kernels), tuple(initramfs)) if kernels else None


def _check_hashes(image: Node, content: memoryview, name: str) -> None:
    for node in image.children:
        algorithm, value = node.text("algo"), node.properties.get("value")
        if not node.name.startswith("hash") or algorithm is None or value is None:
            continue
        if algorithm == "crc32":
            found = zlib.crc32(content).to_bytes(4, "big")
        elif algorithm in ("sha1", "sha256", "sha384", "sha512", "md5"):
            found = hashlib.new(algorithm, content, usedforsecurity=False).digest()
        else:
            continue
        if found != bytes(value):
            raise DamagedInput(f"its image {image.name} does not fit its {algorithm}", path=name)


def _android(data: memoryview, name: str) -> Bundle | None:
    if bytes(data[:8]) != ANDROID or len(data) < 48:
        return None
    (version,) = struct.unpack_from("<I", data, 40)
    if version in (3, 4):
        kernel, ramdisk = struct.unpack_from("<II", data, 8)
        page = 4096
    elif version < 3:
        kernel, _, ramdisk = struct.unpack_from("<III", data, 8)
        (page,) = struct.unpack_from("<I", data, 36)
    else:
        raise DamagedInput(f"an Android boot image of version {version}; 0 to 4 are known", path=name)
    if page not in (2048, 4096, 8192, 16384, 32768, 65536):
        raise DamagedInput(f"an Android boot image with pages of {page} bytes", path=name)
    if not kernel:
        return None
    after = page + -(-kernel // page) * page
    initramfs = (("ramdisk", _part(data, after, ramdisk, "ramdisk", name)),) if ramdisk else ()
    return Bundle("Android boot image", (("kernel", _part(data, page, kernel, "kernel", name)),), initramfs)


def _supported(arch: str, name: str) -> None:
    if arch not in ("arm64", "x86-64"):
        message = f"{name}: a kernel for {arch}, which is not supported."
        raise NotSupported(message, arch=arch)


READERS: tuple[Callable[[memoryview, str], Bundle | None], ...] = (_uki, _uimage, _fit, _android)
