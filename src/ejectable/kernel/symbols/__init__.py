# SPDX-License-Identifier: GPL-2.0-or-later
"""The names in a kernel: from its own kallsyms tables where it was stripped, from the ELF symbol table otherwise."""

from ejectable.kernel.symbols.elf import read_elf_symbols
from ejectable.kernel.symbols.kallsyms import KallsymsTable, read_kallsyms

__all__ = ["KallsymsTable", "read_elf_symbols", "read_kallsyms"]
