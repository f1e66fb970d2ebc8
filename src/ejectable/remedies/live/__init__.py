# SPDX-License-Identifier: GPL-2.0-or-later
"""Repair the kernel that runs, without a reboot: a small module of ours, and every precaution around it."""

from ejectable.remedies.live.remedy import Live

__all__ = ["Live"]
