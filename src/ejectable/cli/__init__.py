# SPDX-License-Identifier: GPL-2.0-or-later
"""What is typed: one small file per command; no logic."""
