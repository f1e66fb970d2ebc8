# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the guest's user space: a static busybox of the right architecture."""

from pathlib import Path

from ejectable.errors import BadInput, Missing
from ejectable.intake import open_regular, read_bounded
from ejectable.model import Arch

__all__ = ["APPLETS", "busybox"]

# Where Debian's busybox-static, Alpine's and Fedora's packages have it.
PLACES = ("/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/sbin/busybox", "/usr/sbin/busybox")
LIMIT = 16 << 20
MACHINES: dict[Arch, int] = {"x86_64": 62, "aarch64": 183}  # e_machine, elf.h
DEBIAN: dict[Arch, str] = {"x86_64": "amd64", "aarch64": "arm64"}
PT_INTERP = 3
# What init.sh calls.
APPLETS = ("sh", "mount", "uname", "stty", "insmod", "rmmod", "dd", "ip", "ping", "sleep", "cat")


def busybox(arch: Arch, given: str | None = None) -> bytes:
    """The program for this architecture: from `given` (the file, or a Debian package), else this system's own.

    Raises `Missing` where there is none, `BadInput` where `given` is something else.
    """
    if given is not None:
        content = _from_package(given) if given.endswith(".deb") else _read(given)
        reason = _unfit(content, arch)
        if reason:
            raise BadInput(f"not a static busybox for {arch}: {reason}", path=given)
        return content
    for place in PLACES:
        if Path(place).is_file():
            content = _read(place)
            if not _unfit(content, arch):
                return content
    package = f"busybox-static:{DEBIAN[arch]}"
    raise Missing(
        f"No static busybox for {arch} was found: it is the guest's user space.",
        hint="`apt-get install busybox-static` if that is this machine's architecture, else "
        f"`apt-get download {package}` and give the file with --busybox.",
    )


def _read(path: str) -> bytes:
    with open_regular(path) as stream:
        return read_bounded(stream, LIMIT, name=path)


def _from_package(path: str) -> bytes:
    from ejectable.lab.kernels import member_of_package

    return member_of_package(path, ("bin/busybox", "usr/bin/busybox"), LIMIT)


def _unfit(content: bytes, arch: Arch) -> str | None:
    """Why this is not a static program for `arch`, or `None`. ELF64, little-endian: see elf(5)."""
    if content[:6] != b"\x7fELF\x02\x01" or len(content) < 64:
        return "no 64-bit ELF program"
    if int.from_bytes(content[18:20], "little") != MACHINES[arch]:
        return "it is for another architecture"
    table = int.from_bytes(content[32:40], "little")
    size = int.from_bytes(content[54:56], "little")
    count = int.from_bytes(content[56:58], "little")
    for number in range(min(count, 64)):
        at = table + number * size
        if int.from_bytes(content[at : at + 4], "little") == PT_INTERP:
            return "it is linked dynamically"
    return None
