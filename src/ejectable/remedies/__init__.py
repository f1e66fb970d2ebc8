# SPDX-License-Identifier: GPL-2.0-or-later
"""What to do about it, and the check that it is done."""
