# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes an initramfs: a cpio archive in the "newc" format, byte for byte the same every time.

Layout: Documentation/driver-api/early-userspace/buffer-format.rst. Device nodes are entries like any other, so
that no root is needed to make them.
"""

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

__all__ = ["Initramfs"]

TRAILER = "TRAILER!!!"
BLOCK = 512  # cpio pads its output to this; the kernel does not ask for it, `cpio -t` does


class Initramfs:
    """A file system in the making: add to it, then take its `image`."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._inode = 0
        self._folders: set[PurePosixPath] = {PurePosixPath()}

    def folder(self, path: str) -> None:
        """Add a directory, and those above it."""
        self._parents(PurePosixPath(path) / "x")

    def file(self, path: str, content: bytes, *, executable: bool = False) -> None:
        """Add a regular file, and the directories above it."""
        self._parents(PurePosixPath(path))
        self._entry(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link, and the directories above it."""
        self._parents(PurePosixPath(path))
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device node (Documentation/admin-guide/devices.txt has the numbers)."""
        self._parents(PurePosixPath(path))
        self._entry(path, stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def files(self, contents: Mapping[str, bytes]) -> None:
        """Add several regular files, in the order given."""
        for path, content in contents.items():
            self.file(path, content)

    @property
    def image(self) -> bytes:
        """The archive, ended and padded."""
        whole = b"".join((*self._pieces, _record(TRAILER, b"", inode=0, mode=0)))
        return whole + bytes(-len(whole) % BLOCK)

    def _parents(self, path: PurePosixPath) -> None:
        for folder in reversed(path.parents):
            if folder not in self._folders:
                self._folders.add(folder)
                self._entry(str(folder), stat.S_IFDIR | 0o755, b"")

    def _entry(self, path: str, mode: int, content: bytes, *, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        self._pieces.append(_record(path, content, inode=self._inode, mode=mode, device=device))


def _record(path: str, content: bytes, *, inode: int, mode: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """One entry: thirteen fields of eight hex digits behind the magic, then name and content, each padded to four.

    Times, owner and the check field (which this variant does not use) are 0.
    """
    name = path.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
