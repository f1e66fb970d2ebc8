# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of an architecture whose code cannot be read here: what it is can be said, and nothing about it."""

from functools import cached_property

from ejectable.errors import NotSupported
from ejectable.kernel.formats.foreign import SUPPORTED
from ejectable.kernel.identity import banner_in, release_of
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.package import Package
from ejectable.model import Doubt, DoubtKind

__all__ = ["ForeignKernel"]


class ForeignKernel(Kernel):
    """What `error` was raised for; `data` is the file."""

    format = "foreign"

    def __init__(
        self,
        path: str,
        data: bytes | memoryview,
        error: NotSupported,
        *,
        member: str | None = None,
        package: Package | None = None,
    ) -> None:
        super().__init__(path, member=member, package=package)
        self._data = memoryview(data)
        self.error = error

    @cached_property
    def banner(self) -> str | None:
        """The line that begins with "Linux version", where it is not packed."""
        return banner_in(self._data)

    @property
    def release(self) -> str | None:
        """`uname -r`, by the banner."""
        return release_of(self.banner)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """That nothing of it was read."""
        detail = f"This is a kernel for {self.error.arch}, which is not supported: {SUPPORTED}."
        return (Doubt(DoubtKind.UNPARSED, self.name, detail),)
