# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every test: real kernels stay where they are, whatever home or cache a test gives itself."""

import os
import signal

from corpus.archive import cache_folder

__all__: list[str] = []

os.environ["EJECTABLE_CORPUS"] = str(cache_folder())
# A shell's background jobs ignore Ctrl-C, and what they start inherits that: then no test could press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
