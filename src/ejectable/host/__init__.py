# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine, read: devices, release, the kernel in use, panic policy, cloud."""
