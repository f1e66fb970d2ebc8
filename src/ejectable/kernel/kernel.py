# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that can be asked, whatever it came from: the interface, and what could not be read.

    for kernel in open_kernels("linux-image-6.12.deb"):
        kernel.release, kernel.build_id        # cheap: read from headers
        kernel.vmlinux.symbols                 # the first that is asked for unpacks the kernel

Everything is read when it is first asked for, so properties and methods may raise `DamagedInput` too.
"""

from pathlib import Path

import msgspec

from ejectable.errors import EjectableError
from ejectable.intake.reasons import doubt_of
from ejectable.kernel.config import Config
from ejectable.kernel.package import Package
from ejectable.kernel.program import Program
from ejectable.model import Arch, Doubt

__all__ = ["Kernel", "Unreadable", "unreadable"]


class Unreadable(msgspec.Struct, frozen=True):
    """Something that looked like a kernel and could not be read; the others beside it still can."""

    path: str
    error: EjectableError
    doubt: Doubt


def unreadable(path: str, error: EjectableError) -> Unreadable:
    """What to hand on in the place of a kernel that `error` keeps from being read."""
    return Unreadable(path, error, doubt_of(error, path))


class Kernel:
    """One kernel. Each kind answers what it knows; what is `None` here is not known of that kind.

    `path` is the file or folder given, `member` the image's name inside of it.
    """

    format = "unknown"  # how it is packed: "bzImage", "Image", "zboot", "vmlinux", "module", "source", "memory"
    source_tree: Path | None = None  # where its source is, if that is what it is

    def __init__(self, path: str, *, member: str | None = None, package: Package | None = None) -> None:
        self.path = path
        self.member = member
        self.package = package

    @property
    def name(self) -> str:
        """Path and member, for messages."""
        return f"{self.path}({self.member})" if self.member else self.path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.format}>"

    @property
    def release(self) -> str | None:
        """`uname -r`."""
        return None

    @property
    def banner(self) -> str | None:
        """The line that begins with "Linux version"."""
        return None

    @property
    def arch(self) -> Arch | None:
        """The instruction set."""
        return None

    @property
    def build_id(self) -> str | None:
        """The GNU build-id in lower-case hex."""
        return None

    @property
    def config(self) -> Config | None:
        """Its configuration, as far as it is there."""
        return None

    @property
    def vmlinux(self) -> Program | None:
        """The kernel proper, with symbols and types."""
        return None

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What was not seen of the kernel proper; `module_doubts` has those about a module."""
        return ()

    def module(self, name: str) -> Program | None:
        """The module of this name that was built for this kernel, linked; `None` if there is none.

        Raises `DamagedInput` if the module is there and broken.
        """
        del name
        return None

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        """What keeps `module(name)` from being the whole truth: another build, a second candidate, a file missing."""
        del name
        return ()

    def module_names(self) -> frozenset[str]:
        """The modules that came with it; in a large package this reads to its end."""
        return frozenset()

    def builtin(self, name: str) -> bool | None:
        """Whether modules.builtin lists `name`; `None` where there is no such list."""
        del name
        return None
