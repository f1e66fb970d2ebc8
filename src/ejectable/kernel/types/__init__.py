# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of a kernel, from BTF or DWARF: where each member lies in its struct."""

from ejectable.kernel.types.btf import BtfTypes, load_btf
from ejectable.kernel.types.find import find_btf

__all__ = ["BtfTypes", "find_btf", "load_btf"]
