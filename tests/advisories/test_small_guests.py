# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict needs little memory: guests with 512 MiB get the same answer as large ones."""

import os
import subprocess
import sys

import pytest

from corpus.modules import Module
from ejectable.errors import Missing

ADDRESS_SPACE = 400_000  # KiB, as `ulimit -v` counts


@pytest.mark.kernels
@pytest.mark.parametrize("release", [Module().release, "6.1.0-50-cloud-arm64"])
def test_a_verdict_comes_in_a_small_address_space(release: str) -> None:
    try:
        module = Module(release=release).path()
    except Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    command = [sys.executable, "-m", "ejectable", "kernel", "--no-cache", "--format", "json", str(module)]
    limited = ["prlimit", f"--as={ADDRESS_SPACE << 10}", *command]
    done = subprocess.run(limited, capture_output=True, check=False, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")
