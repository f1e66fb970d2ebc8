# SPDX-License-Identifier: GPL-2.0-or-later
"""A log, read: sources, events, fingerprints."""
