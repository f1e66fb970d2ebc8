# SPDX-License-Identifier: GPL-2.0-or-later
"""Before anything is installed: is the package manager free, and is there room?"""

import fcntl
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ejectable import host
from ejectable.errors import EjectableError, Missing
from ejectable.remedies.upgrade.backend import Offer, Package

__all__ = ["free", "holder", "room"]

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid (include/uapi/asm-generic/fcntl.h).
FLOCK = struct.Struct("hh4xqqi4x")
MARGIN = 16 << 20  # bytes, beside what is known to be needed
INITRD = 64 << 20  # bytes, where there is none to compare with
MIB = 1 << 20


def holder(root: host.Root, paths: Iterable[str]) -> str | None:
    """Who holds one of the locks: "apt-get (process 4711) holds /var/lib/dpkg/lock"; `None` where nobody does."""
    for path in paths:
        process = _by_number(root, path) if path.endswith(".pid") else _by_lock(root, path)
        if process:
            return f"{_name(root, process)} (process {process}) holds {path}"
    return None


def free(root: host.Root, paths: Iterable[str]) -> None:
    """Raises `Missing` where somebody else is at work with the package manager."""
    if found := holder(root, paths):
        raise Missing(f"The package manager is busy: {found}.", hint="Wait until it is done, then run this again.")


def _by_lock(root: host.Root, path: str) -> int | None:
    """The process that has a lock of fcntl(2) on a file."""
    if not root.is_file(path):
        return None
    with suppress(OSError, EjectableError), root.open(path) as file:
        # Asking is allowed of a file that is open for reading; only taking the lock is not.
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, process = FLOCK.unpack(fcntl.fcntl(file.fileno(), fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(process)
    return None


def _by_number(root: host.Root, path: str) -> int | None:
    """The process whose number is in a file, if it lives."""
    process = root.number(path)
    if not process or process < 1 or process == os.getpid():
        return None
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:  # it lives, and is another user's
        pass
    return process


def _name(root: host.Root, process: int) -> str:
    return root.text(f"/proc/{process}/comm", 64) or "a process"


def room(root: host.Root, running: str | None, offer: Offer, downloads: Path) -> None:
    """Raises `Missing` where a file system is too small for the kernel, its initramfs or the download."""
    boot = _of_running(root, running)
    places = {
        "/boot": boot or INITRD,
        "/lib/modules": _sum(offer.wanted, "installed_size"),
        str(downloads): _sum(offer.wanted, "size"),
    }
    needed: dict[int, int] = {}
    for path, size in places.items():
        there = path if path == str(downloads) else root.outside(root.resolve(path) or "/")
        try:
            device, found = os.stat(there).st_dev, os.statvfs(there)  # noqa: PTH116
        except OSError:
            continue
        needed[device] = needed.get(device, MARGIN) + size
        available = found.f_bavail * found.f_frsize
        if needed[device] > available:
            raise Missing(
                f"{path} is too small: {offer.image.label} needs {needed[device] // MIB} MiB there, and "
                f"{available // MIB} MiB are free.",
                hint="Remove a kernel that is no longer needed (not the one in use), or make room otherwise.",
            )


def _of_running(root: host.Root, running: str | None) -> int:
    """What the kernel in use takes in /boot, its initramfs included, and a tenth more."""
    size = 0
    for name in (root.list("/boot") or ()) if running else ():
        about = root.stat(f"/boot/{name}") if running and running in name else None
        size += about.st_size if about else 0
    return size + size // 10


def _sum(packages: Iterable[Package], field: str) -> int:
    return sum(getattr(package, field) or 0 for package in packages)
