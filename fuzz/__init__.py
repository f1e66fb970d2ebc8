# SPDX-License-Identifier: GPL-2.0-or-later
"""One fuzz target per parser, and the inputs that once broke one."""
