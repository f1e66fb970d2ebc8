# SPDX-License-Identifier: GPL-2.0-or-later
"""Will this Linux kernel crash when a virtio device is unplugged, and what do I do about it?"""

__all__ = ["__version__"]

__version__ = "0.1.0"
