# SPDX-License-Identifier: GPL-2.0-or-later
"""All transformations."""

from tests.attack.files import FILES
from tests.attack.log_steps import LOGS
from tests.attack.machines import MACHINES
from tests.attack.trees import TREES

__all__ = ["STEPS"]

STEPS = (*FILES, *TREES, *MACHINES, *LOGS)
