# SPDX-License-Identifier: GPL-2.0-or-later
"""Judging in a confined child: what the parent prepares, which files it opens, and what it makes of a child's death."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ejectable.advisories import registry
from ejectable.confine import TRY, Fence, load, memory_is_scarce, run
from ejectable.errors import Ended
from ejectable.intake.limits import GIB, Limits
from ejectable.intake.outside import opening
from ejectable.model import Doubt, DoubtKind, Finding, KernelReport, Status

__all__ = ["confined", "undecided"]

T = TypeVar("T")
# What nearly every kernel needs. What else one needs is imported when it asks, and its reading begins again.
USUAL = (
    "capstone", "unicorn.x86_const", "unicorn.arm64_const", "unicorn.unicorn_py3.unicorn",
    "unicorn.unicorn_py3.arch.intel", "unicorn.unicorn_py3.arch.arm64", "zstandard",
    "ejectable.kernel.open", "ejectable.kernel.code", "ejectable.kernel.machine", "ejectable.kernel.symbols.kallsyms",
    "ejectable.kernel.symbols.elf", "ejectable.kernel.types", "ejectable.kernel.types.btf",
    "ejectable.kernel.types.dwarf", "ejectable.advisories.probe",
)  # fmt: skip
# Where what belongs to an image or a module may lie, besides its own folder: ejectable.kernel.containers.folder.
KERNELS = frozenset(("boot", "modules"))


def confined(
    work: Callable[[], T],
    paths: Sequence[str],
    limits: Limits,
    *,
    into: Any,
    ids: Sequence[str],
    alone: bool = False,
    usual: Sequence[str] = USUAL,
) -> T:
    """What `work` returns, which reads the files and folders at `paths`; raises `Ended` where its process died.

    What belongs to a kernel and lies beside them may be read too, unless they are to be read `alone`.
    `usual` are the modules that it surely needs.
    """
    try:
        for name in usual:
            load(name)
        for name in ids:
            registry()[name].prepare()
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not memory_is_scarce():
            raise
        raise Ended("There is too little memory to load what reads kernels.", hint=TRY) from error
    fence = Fence(memory=2 * GIB + 3 * limits.in_memory)
    return run(work, into=into, outside=opening(_given(paths) if alone else _belongs(paths), limits), fence=fence)


def undecided(path: str, ids: Sequence[str], ended: Ended) -> KernelReport:
    """The report of a kernel whose reading ended without an answer: `unknown`, with that as the doubt."""
    doubt = Doubt(DoubtKind.UNREADABLE, path, ended.message)
    reason = f"{ended.message} {ended.hint or ''}".strip()
    findings = tuple(
        Finding(name, Status.UNKNOWN, None, reason, (), conflict=False, doubts=(doubt,)) for name in ids
    )  # fmt: skip
    return KernelReport(path, None, None, None, None, None, "unknown", None, findings)


def _given(given: Sequence[str]) -> Callable[[str], bool]:
    """Whether a file is one of those that were given, or lies below one."""
    tops = [Path(os.path.realpath(path)) for path in given]
    return lambda path: any(top in (Path(path), *Path(path).parents) for top in tops)


def _belongs(given: Sequence[str]) -> Callable[[str], bool]:
    """Whether a file is one of those that were given, below or beside one, or belongs to a kernel that lies there."""
    tops = [Path(os.path.realpath(path)) for path in given]

    def belongs(path: str) -> bool:
        real = Path(path)
        if KERNELS.intersection(parent.name for parent in real.parents):
            return True
        return any(top in (real, *real.parents) or real.parent == top.parent or _in_build(real, top) for top in tops)

    return belongs


def _in_build(real: Path, top: Path) -> bool:
    """The configuration and the modules of a build lie up to four folders above its image."""
    return any(above in real.parents for above in top.parents[:4] if (above / "Makefile").is_file())
