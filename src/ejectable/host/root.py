# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's files are read through `ejectable.intake.root`, as a folder of kernels is."""

from ejectable.intake.root import Root

__all__ = ["Root"]
