# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts and advisories, added up to an assessment: of kernels by themselves, and of a machine."""
