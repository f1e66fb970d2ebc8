# SPDX-License-Identifier: GPL-2.0-or-later
"""Real kernels for tests, benchmarks and demonstrations: downloaded by package name, or built; never committed."""
