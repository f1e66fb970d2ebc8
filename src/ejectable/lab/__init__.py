# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a kernel in a QEMU guest, takes a device away, and tells what became of it and what a crash is to blame on."""
