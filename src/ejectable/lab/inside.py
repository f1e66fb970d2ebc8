# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab asks of foreign bytes, asked in confined processes: what is in a package, an image, a module."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ejectable.confine import Fence, run
from ejectable.errors import Denied
from ejectable.intake import DEFAULT_LIMITS, Limits, open_regular
from ejectable.intake.limits import GIB, MIB

__all__ = ["inside"]

T = TypeVar("T")


def inside(work: Callable[[], T], *, into: Any, paths: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS) -> T:
    """What `work` returns, of the type `into`; it may open `paths`. Raises what it raises, and `Ended` as `run`."""

    def opened(path: str) -> int:
        if path not in paths:
            raise Denied(f"{path}: it does not belong to what is run.", hint="Name it on the command line.")
        with open_regular(path) as file:
            return os.dup(file.fileno())

    fence = Fence(memory=2 * GIB + 3 * limits.in_memory, answer=limits.in_memory + 64 * MIB)
    return run(work, into=into, outside={"open": opened}, fence=fence)
