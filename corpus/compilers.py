# SPDX-License-Identifier: GPL-2.0-or-later
"""The compilers that test kernels and modules are made with.

Debian 12's are the reference: gcc-12, which Debian builds its 6.1 and 6.12 kernels with, and clang-16. Other
distributions have other versions; the first that is installed serves, as in requirements/debian.txt. The older and the
newer ones are for the corpus alone, and none other serves for them.
"""

import shutil
from functools import cache
from typing import Literal

from ejectable.errors import Missing

__all__ = ["Compiler", "command", "linker", "llvm_suffix"]

Compiler = Literal["gcc-12", "clang-16", "gcc-11", "clang-14", "clang-19"]
CANDIDATES: dict[Compiler, tuple[str, ...]] = {
    "gcc-12": ("gcc-12", "gcc-13", "gcc-14", "gcc"),
    "clang-16": ("clang-16", "clang-17", "clang-18", "clang-19", "clang"),
    "gcc-11": ("gcc-11",),
    "clang-14": ("clang-14",),
    "clang-19": ("clang-19",),
}


@cache
def command(compiler: Compiler, cross: str = "") -> str:
    """The command of a compiler, `cross` in front of it ("aarch64-linux-gnu-"); raises `Missing`."""
    for name in CANDIDATES[compiler]:
        if shutil.which(f"{cross}{name}"):
            return f"{cross}{name}"
    package = f"{compiler}-{cross.removesuffix('-')}" if cross else compiler
    raise Missing(f"{cross}{compiler} was not found, nor another that serves.", hint=f"apt-get install {package}")


def linker(compiler: Compiler = "clang-16") -> str:
    """The ld.lld that belongs to the clang that is there."""
    return f"ld.lld{command(compiler).removeprefix('clang')}"


def llvm_suffix() -> str:
    """What the kernel's `make LLVM=` takes for the tools that belong to the clang that is there: "-16", or "1"."""
    version = command("clang-16").removeprefix("clang")
    return version or "1"
