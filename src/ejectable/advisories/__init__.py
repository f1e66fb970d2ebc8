# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known: one folder per known defect."""
