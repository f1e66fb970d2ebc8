# SPDX-License-Identifier: GPL-2.0-or-later
"""How it is shown: text, JSON."""
