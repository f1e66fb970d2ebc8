# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel as source: a tree, and the release that its Makefile names."""

from functools import cached_property
from pathlib import Path

from ejectable.kernel.containers.folder import source_release
from ejectable.kernel.kernel import Kernel

__all__ = ["SourceKernel"]


class SourceKernel(Kernel):
    """The source tree whose top is `tree`."""

    format = "source"

    def __init__(self, tree: Path) -> None:
        super().__init__(str(tree))
        self.source_tree = tree

    @cached_property
    def release(self) -> str | None:
        """The release that the top Makefile gives, without what a configuration would append."""
        return source_release(self.source_tree) if self.source_tree is not None else None
