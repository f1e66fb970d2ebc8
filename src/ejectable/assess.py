# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts and advisories, added up to an assessment."""
