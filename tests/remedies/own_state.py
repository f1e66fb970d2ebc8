# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the tests keep the records of changes: never in this machine's own folder."""

__all__ = ["IN_A_CHILD"]

# Root's folder does not hang on the environment, so a child is told in its program.
IN_A_CHILD = (
    "import os, pathlib; from ejectable.remedies import audit, state; audit.syslog.syslog = lambda *_: None\n"
    "state.SYSTEM = pathlib.Path(os.environ['TEST_STATE'])\n"
)
