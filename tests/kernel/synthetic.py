# SPDX-License-Identifier: GPL-2.0-or-later
"""Small kernels made for tests: an ELF vmlinux and a flat arm64 image with a banner, a build-id and a config, in
every packing that the kernel's build offers, by the tools that the kernel's build calls."""

import functools
import gzip
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from corpus.archive import cache_folder, fetch, locked
from ejectable.errors import BadInput, Missing
from ejectable.intake import Compression

__all__ = [
    "ARM_BASE",
    "BANNER",
    "BUILD_ID",
    "CONFIG",
    "PACKERS",
    "RELEASE",
    "TEXT",
    "absent",
    "ar",
    "arm64_image",
    "bpftool",
    "bzimage",
    "cpio_newc",
    "deb",
    "pack",
    "package_of",
    "refusal",
    "tar_of",
    "tool",
    "vmlinux",
    "zboot",
]

RELEASE = "6.8.0-42-synthetic"
BANNER = f"Linux version {RELEASE} (tests@ejectable) (gcc 12, GNU ld 2.40) #1 SMP Tue Nov 24 00:00:00 UTC 2026\n"
BUILD_ID = "00112233445566778899aabbccddeeff01234567"
CONFIG = b'CONFIG_VIRTIO_PCI=y\n# CONFIG_VIRTIO_PCI_LEGACY is not set\nCONFIG_LOCALVERSION="-synthetic"\n'
TEXT = 0xFFFF_FFFF_8100_0000
ARM_BASE = 0xFFFF_8000_8000_0000

# scripts/Makefile.lib of the kernel: how each packing is called, and whether it appends the unpacked size.
PACKERS: dict[Compression, tuple[list[str], bool]] = {
    Compression.GZIP: (["gzip", "-n", "-c", "-9"], False),
    Compression.BZIP2: (["bzip2", "-c", "-9"], True),
    Compression.LZMA: (["xz", "--format=lzma", "-c", "-9"], True),
    Compression.XZ: (["xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"], True),
    Compression.LZO: (["lzop", "-9", "-c"], True),
    Compression.LZ4: (["lz4", "-l", "-9", "-c", "-"], True),
    Compression.ZSTD: (["zstd", "-22", "--ultra", "-c", "-q"], True),
}


@functools.lru_cache(maxsize=64)
def pack(data: bytes, compression: Compression, *, with_size: bool = True) -> bytes:
    """Pack as the kernel's build does."""
    command, appends = PACKERS[compression]
    packed = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    return packed + (struct.pack("<I", len(data)) if appends and with_size else b"")


def absent(what: str) -> NoReturn:
    """Skip the test, saying what is missing; where everything must be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def tool(command: str, packages: str) -> str:
    """The path of a program that a test needs."""
    return shutil.which(command) or absent(f"{command} is missing: apt-get install {packages}")


@functools.cache
def bpftool() -> str:
    """A bpftool that runs. Ubuntu's is a script that wants the tools of the running kernel; then it is Debian's."""
    there = shutil.which("bpftool")
    if there and subprocess.run([there, "version"], capture_output=True, check=False).returncode == 0:
        return there
    try:
        package = fetch("bpftool")
    except Missing as error:
        absent(f"{error.message} {error.hint or ''}")
    folder = cache_folder() / "reference" / package.stem
    with locked("bpftool"):
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return str(folder / "usr/sbin/bpftool")


def package_of(release: str, architecture: str) -> Path:
    """Debian's package of a kernel release."""
    try:
        return fetch(f"linux-image-{release}", architecture)
    except Missing as error:
        absent(f"{error.message} {error.hint or ''}")


def refusal(read: Callable[[], object]) -> BadInput | None:
    """The error that `read` ends in, if it is one that a user may see; any other error is a failure."""
    try:
        read()
    except BadInput as error:
        return error
    return None


def _contents(size: int, config: bytes = CONFIG, banner: str = BANNER) -> bytes:
    note = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + bytes.fromhex(BUILD_ID)
    embedded = b"IKCFG_ST" + gzip.compress(config, mtime=0) + b"IKCFG_ED"
    # Something between the extremes of compressible, the same in every run.
    filler = b"".join(struct.pack("<II", i * 2654435761 % 2**32, i) for i in range(size // 8))
    text = note + banner.encode() + b"\0" + embedded
    return text + bytes(-len(text) % 64) + filler


def vmlinux(size: int = 1 << 16, config: bytes = CONFIG, banner: str = BANNER) -> bytes:
    """A stripped x86-64 vmlinux without section headers; some `size` bytes."""
    content = _contents(size, config, banner)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, TEXT, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    start = 0x1000
    segments = (
        struct.pack("<IIQQQQQQ", 1, 5, start, TEXT, 0x100_0000, len(content), len(content), 0x20_0000)
        + struct.pack("<IIQQQQQQ", 1, 6, start, 0, 0x300_0000, 64, 128, 0x1000)  # per-CPU, linked at 0
        + struct.pack("<IIQQQQQQ", 4, 4, start, TEXT, 0x100_0000, 36, 36, 4)
    )
    return (header + segments).ljust(start, b"\0") + content


def arm64_image(size: int = 1 << 16, *, relocations: int = 512) -> bytes:
    """A flat arm64 image; its pointers are zero, and stand in a .rela.dyn at the end."""
    body = bytearray(bytes(0x200) + _contents(size))
    body += bytes(-len(body) % 8)
    table = b"".join(
        struct.pack("<QQQ", ARM_BASE + 0x40 + 8 * (i % 16), 0x403, ARM_BASE + 0x1000 * i) for i in range(relocations)
    )
    image = bytes(body) + table
    return struct.pack("<IIQQQ24x4sI", 0x91005A4D, 0x14000000, 0, len(image) + 4096, 0xA, b"ARM\x64", 0) + image[64:]


def bzimage(payload: bytes, *, protocol: int = 0x20F, banner: str = BANNER) -> bytes:
    """Setup code, header and payload, as arch/x86/boot/tools/build puts them together."""
    setup_sectors = 4
    decompressor = 0x200
    setup = bytearray((setup_sectors + 1) * 512)
    setup[0x1F1] = setup_sectors
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x400)
    struct.pack_into("<H", setup, 0x236, 1)
    if protocol >= 0x208:
        struct.pack_into("<II", setup, 0x248, decompressor, len(payload))
    version = banner.removeprefix("Linux version ").strip().encode() + b"\0"
    setup[0x600 : 0x600 + len(version)] = version
    return bytes(setup) + b"\xcc" * decompressor + payload + bytes(4096)


def zboot(payload: bytes, name: bytes = b"gzip") -> bytes:
    """The EFI zboot container (drivers/firmware/efi/libstub/zboot-header.S)."""
    sized = payload[:-4] if name != b"gzip" else payload
    start = 0x400
    header = bytearray(start)
    header[:8] = b"MZ\0\0zimg"
    struct.pack_into("<II", header, 8, start, len(sized))
    header[24 : 24 + len(name)] = name
    struct.pack_into("<I", header, 0x3C, 0x80)
    header[0x80:0x86] = b"PE\0\0" + struct.pack("<H", 0xAA64)
    return bytes(header) + payload


def cpio_newc(members: dict[str, bytes]) -> bytes:
    """A cpio archive in the newc format, as an initramfs and a package payload are."""
    archive = b""
    for number, (name, data) in enumerate([*members.items(), ("TRAILER!!!", b"")]):
        raw = name.encode() + b"\0"
        mode = 0o100644 if name != "TRAILER!!!" else 0
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return archive


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar archive by Python's own writer, long names and all."""
    import io
    import tarfile

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def ar(members: dict[str, bytes]) -> bytes:
    """An ar archive in the common format."""
    archive = b"!<arch>\n"
    for name, data in members.items():
        archive += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name.encode(), 0, 0, 0, b"100644", len(data))
        archive += data + b"\n" * (len(data) % 2)
    return archive


def deb(
    members: dict[str, bytes],
    compression: Compression = Compression.NONE,
    *,
    package: str = "linux-image-test",
    depends: str = "",
) -> bytes:
    """A Debian package with these files."""
    suffix = {Compression.NONE: "", Compression.GZIP: ".gz", Compression.XZ: ".xz", Compression.ZSTD: ".zst"}
    fields = f"Package: {package}\nVersion: 6.8.0-42.42\nArchitecture: amd64\n"
    fields += f"Depends: {depends}\n" if depends else ""
    control = tar_of({"./control": fields.encode()})
    data = tar_of({f"./{name}": content for name, content in members.items()})
    if compression is not Compression.NONE:
        control, data = (pack(part, compression, with_size=False) for part in (control, data))
    end = suffix[compression]
    return ar({"debian-binary": b"2.0\n", f"control.tar{end}": control, f"data.tar{end}": data})
