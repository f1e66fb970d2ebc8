# SPDX-License-Identifier: GPL-2.0-or-later
"""The first remedy: the newest kernel package on offer, if the fix is in its code, and only then."""

from ejectable.remedies.upgrade.upgrade import Upgrade

__all__ = ["Upgrade"]
