# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of architectures that cannot be read here, told by their headers so that they can be called by name.

Sources: include/uapi/linux/elf-em.h; Documentation/arch/riscv/boot-image-header.rst; arch/s390/boot/head.S ("S390EP"
at 0x10008); arch/arm/boot/compressed/head.S (0x016f2818 at 0x24); arch/loongarch/kernel/head.S (0x818223cd at 0x38);
Documentation/arch/x86/boot.rst (XLF_KERNEL_64); the machines of PE files: include/linux/pe.h.
"""

import struct

from ejectable.errors import NotSupported
from ejectable.kernel.program import searchable

__all__ = ["SUPPORTED", "architecture", "recognise", "refuse"]

SUPPORTED = "the code of x86-64 and arm64 kernels can be read"
ELF_MACHINES = {
    2: "sparc", 3: "i386", 4: "m68k", 8: "mips", 15: "parisc", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm",
    42: "sh", 43: "sparc64", 45: "arc", 50: "ia64", 62: "x86-64", 94: "xtensa", 106: "blackfin", 164: "hexagon",
    183: "arm64", 188: "tile", 189: "microblaze", 195: "arc", 243: "riscv", 252: "csky", 258: "loongarch",
    0x9026: "alpha", 0xA390: "s390x",
}  # fmt: skip
PE_MACHINES = {0x14C: "i386", 0x1C2: "arm", 0x1C4: "arm", 0x5032: "riscv32", 0x5064: "riscv64",
               0x6232: "loongarch32", 0x6264: "loongarch64"}  # fmt: skip
# What shows that an ELF file is a kernel or a module, and no other program: the banner, a module's vermagic, the
# packed kernel in a PowerPC boot image (arch/powerpc/boot/wrapper).
OF_A_KERNEL = (b"Linux version ", b"vermagic=", b".kernel:vmlinux.strip")
HEAD = 0x270


def refuse(arch: str, name: str) -> NotSupported:
    """The error for a kernel of this architecture."""
    message = f"{name}: a kernel for {arch}, which is not supported: {SUPPORTED}."
    return NotSupported(message, arch=arch)


def recognise(data: memoryview, name: str) -> None:
    """Raise `NotSupported`, naming the architecture, if this is a kernel of one that cannot be read here."""
    arch = architecture(data)
    if arch is not None and (bytes(data[:4]) != b"\x7fELF" or _is_kernel(data)):
        raise refuse(arch, name)


def architecture(data: memoryview) -> str | None:
    """The foreign architecture that the first bytes of an image show; `None` for those that are read, and for others.

    An ELF file of such a machine may be any program.
    """
    head = bytes(data[:HEAD])
    if head[:4] == b"\x7fELF":
        return _of_elf(head)
    if head[0x202:0x206] == b"HdrS":
        protocol, flags = int.from_bytes(head[0x206:0x208], "little"), int.from_bytes(head[0x236:0x238], "little")
        return "i386" if protocol >= 0x020C and not flags & 1 else None
    if head[0x30:0x38] == b"RISCV\0\0\0" or head[0x38:0x3C] == b"RSC\x05":
        return "riscv64"
    if head[0x38:0x3C] == b"ARM\x64":
        return "big-endian arm64" if head[0x18] & 1 else None  # the flags of Documentation/arch/arm64/booting.rst
    if head[0x24:0x28] == b"\x18\x28\x6f\x01":
        return "arm"
    if head[0x38:0x3C] == b"\xcd\x23\x82\x81" and head[4:8] != b"zimg":
        return "loongarch64"
    if head[:2] == b"MZ" and head[4:8] == b"zimg":
        return _of_pe(data)
    if bytes(data[0x10008:0x1000E]) == b"S390EP":
        return "s390x"
    return None


def _of_elf(head: bytes) -> str | None:
    if len(head) < 20:
        return None
    wide, little = head[4] == 2, head[5] == 1
    machine = int.from_bytes(head[18:20], "little" if little else "big")
    arch = ELF_MACHINES.get(machine)
    if arch in ("x86-64", "arm64"):
        if wide and little:
            return None
        return f"big-endian {arch}" if wide else f"{arch} with 32-bit pointers"
    if arch in ("riscv", "loongarch"):
        return f"{arch}{'64' if wide else '32'}"
    if arch == "ppc64" and little:
        return "ppc64le"
    if arch == "mips":
        return f"mips{'64' if wide else ''}{'el' if little else ''}"
    return arch


def _of_pe(data: memoryview) -> str | None:
    if len(data) < 0x40:
        return None
    (at,) = struct.unpack_from("<I", data, 0x3C)
    if bytes(data[at : at + 4]) != b"PE\0\0":
        return None
    return PE_MACHINES.get(int.from_bytes(data[at + 4 : at + 6], "little"))


def _is_kernel(data: memoryview) -> bool:
    haystack = searchable(data)
    return any(mark in haystack for mark in OF_A_KERNEL)
