# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel binary, read: containers, image formats, symbols, types, code, and a machine to run one function in."""

from ejectable.kernel.kernel import Kernel, Unreadable
from ejectable.kernel.open import open_kernels
from ejectable.kernel.package import Package
from ejectable.kernel.program import (
    Image,
    Member,
    NotMapped,
    Program,
    Segment,
    Struct,
    Symbol,
    SymbolTable,
    Types,
)

__all__ = [
    "Image",
    "Kernel",
    "Member",
    "NotMapped",
    "Package",
    "Program",
    "Segment",
    "Struct",
    "Symbol",
    "SymbolTable",
    "Types",
    "Unreadable",
    "open_kernels",
]
