# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest, run: QEMU, initramfs, QMP, console."""
