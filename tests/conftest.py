# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every test: real kernels stay where they are, whatever home or cache a test gives itself."""

import os

from corpus.archive import cache_folder

__all__: list[str] = []

os.environ["EJECTABLE_CORPUS"] = str(cache_folder())
