# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system seen from a root of its own: the live host's `/`, or a tree somewhere below.

Symbolic links are followed by hand and stay inside, as after chroot(2): a captured tree may hold links to anywhere,
sysfs is made of links, and neither may lead out of the root. Every read is bounded.
"""

import os
import stat
from pathlib import Path

from ejectable.errors import BadInput, Missing

__all__ = ["Root"]

MAX_LINKS = 40  # as the kernel's own MAXSYMLINKS, include/linux/namei.h
MAX_ENTRIES = 65536
DEFAULT_LIMIT = 1 << 20


class Root:
    """Paths are given from the root, with or without a leading slash; answers are inside it.

    What could not be read for want of permission is remembered in `denied`: root would see more.
    """

    def __init__(self, path: str | os.PathLike[str] = "/") -> None:
        self.path = Path(path)
        self.live = self.path == Path("/")
        self.denied: set[str] = set()
        try:
            mode = self.path.stat().st_mode
        except PermissionError as error:
            raise Missing(f"{path}: may not be read by this user.", hint="Run it as root.") from error
        except (OSError, ValueError) as error:
            raise Missing(f"{path}: no such directory.", hint="Give the root of a mounted or captured tree.") from error
        if not stat.S_ISDIR(mode):
            raise BadInput("expected a directory, the root of a machine's files", path=str(path))

    def resolve(self, path: str) -> str | None:
        """The path without links, from the root; `None` if it leads nowhere. Links never lead out of the root."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                if done:
                    done.pop()
                continue
            here = self.outside("/".join([*done, part]))
            try:
                mode = os.lstat(here).st_mode
                target = os.readlink(here) if stat.S_ISLNK(mode) else None  # noqa: PTH115  (hot, as above)
            except PermissionError:
                self.denied.add("/" + "/".join([*done, part]))
                return None
            except (OSError, ValueError):
                return None
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                return None
            if target.startswith("/"):
                done.clear()
            pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return "/" + "/".join(done)

    def outside(self, path: str) -> str:
        """The path that this process uses for a path (already resolved) inside the root."""
        return os.path.join(self.path, path.lstrip("/"))  # noqa: PTH118  (hot: a thousand calls for one check)

    def file(self, path: str) -> str | None:
        """Where a regular file is for this process, links resolved; `None` if there is none."""
        resolved = self.resolve(path)
        if resolved is None:
            return None
        there = self.outside(resolved)
        try:
            return there if stat.S_ISREG(os.lstat(there).st_mode) else None
        except OSError:
            return None

    def is_dir(self, path: str) -> bool:
        """Whether it is a directory, links followed."""
        resolved = self.resolve(path)
        return resolved is not None and os.path.isdir(self.outside(resolved))  # noqa: PTH112

    def exists(self, path: str) -> bool:
        """Whether there is anything, links followed."""
        return self.resolve(path) is not None

    def read(self, path: str, limit: int = DEFAULT_LIMIT) -> bytes | None:
        """The first `limit` bytes of a regular file; `None` if there is none or it may not be read."""
        there = self.file(path)
        if there is None:
            return None
        try:
            # Non-blocking and not through a link: the tree may change under our feet.
            descriptor = os.open(there, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
        except PermissionError:
            self.denied.add(path)
            return None
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            parts: list[bytes] = []
            left = limit
            while left > 0:
                part = os.read(descriptor, min(left, 1 << 16))
                if not part:
                    break
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        except PermissionError:
            self.denied.add(path)
            return None
        except OSError:  # sysfs answers EIO, ENODEV and the like for an attribute that has nothing to say
            return None
        finally:
            os.close(descriptor)

    def text(self, path: str, limit: int = 65536) -> str | None:
        """A small text file, without the white space around it; `None` as for `read`."""
        data = self.read(path, limit)
        return None if data is None else data.decode("utf-8", "replace").strip().strip("\0")

    def number(self, path: str) -> int | None:
        """A file that holds one decimal or 0x-number; `None` if it does not."""
        text = self.text(path, 64)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def list(self, path: str) -> tuple[str, ...] | None:
        """The names in a directory, sorted; `None` if there is none or it may not be read."""
        resolved = self.resolve(path)
        if resolved is None:
            return None
        names: list[str] = []
        try:
            with os.scandir(self.outside(resolved)) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) >= MAX_ENTRIES:
                        break
        except PermissionError:
            self.denied.add(path)
            return None
        except OSError:
            return None
        return tuple(sorted(names))

    def folders(self, path: str) -> tuple[str, ...] | None:
        """The names of the directories in a directory, links to directories left out; `None` as for `list`."""
        resolved = self.resolve(path)
        if resolved is None:
            return None
        try:
            with os.scandir(self.outside(resolved)) as entries:
                return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))
        except PermissionError:
            self.denied.add(path)
            return None
        except OSError:
            return None

    def link(self, path: str) -> str | None:
        """The last name of what a link leads to: the driver, the subsystem. `None` if it is no link or dangling."""
        parent, _, name = path.rstrip("/").rpartition("/")
        folder = self.resolve(parent)
        if folder is None:
            return None
        try:
            # Only the name is wanted: in a captured tree the target itself may not have been captured.
            target = os.readlink(self.outside(f"{folder}/{name}"))  # noqa: PTH115
        except OSError:
            return None
        return target.rstrip("/").rpartition("/")[2] or None
