# SPDX-License-Identifier: GPL-2.0-or-later
"""Small pieces of kernel-like code, compiled with the options that kernels are compiled with."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from corpus import compilers
from ejectable.errors import Missing
from ejectable.kernel import Program
from ejectable.kernel.module import Module
from ejectable.kernel.types.dwarf import load_dwarf
from tests.kernel.synthetic import absent

# (name, compiler, options): gcc and clang, both architectures.
COMPILERS = {
    "x86_64-gcc": ("gcc", "-mcmodel=kernel -mno-red-zone -fcf-protection=none"),
    "x86_64-clang": ("clang-16", "--target=x86_64-linux-gnu -mcmodel=kernel -mno-red-zone"),
    "aarch64-gcc": ("aarch64-linux-gnu-gcc", "-mgeneral-regs-only -mno-outline-atomics"),
    "aarch64-clang": ("clang-16", "--target=aarch64-linux-gnu -mgeneral-regs-only -mno-outline-atomics"),
}
ALWAYS = "-c -O2 -ffreestanding -fno-pic -fno-pie -fno-asynchronous-unwind-tables -fno-stack-protector -w"


def clang() -> str:
    """The clang that is there."""
    try:
        return compilers.command("clang-16")
    except Missing as error:
        absent(error.message)


@cache
def compiled(source: str, compiler: str, options: str = "") -> Program:
    """The program that this source is compiled to, with its types for "-g"; skips where the compiler is missing."""
    name, own = COMPILERS[compiler]
    if name == "clang-16":
        name = clang()
    elif shutil.which(name) is None:
        absent(f"{name} is not installed: see requirements/debian.txt")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "piece.c")
        file.write_text(source)
        made = file.with_suffix(".o")
        subprocess.run([name, *own.split(), *ALWAYS.split(), *options.split(), "-o", made, file], check=True)
        module = Module(made.read_bytes(), name="piece.o")
    types = load_dwarf(module.elf.data) if "-g" in options.split() else None
    return Program("piece", module.image, module.symbols, types)
