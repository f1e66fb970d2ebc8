# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel boots next, read from the files of the boot loaders that a machine has."""

from ejectable.host.bootloader.next_boot import Entry, NextBoot, boots_next

__all__ = ["Entry", "NextBoot", "boots_next"]
