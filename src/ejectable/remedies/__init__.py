# SPDX-License-Identifier: GPL-2.0-or-later
"""What to do about it, and the check that it is done: one module or folder per remedy."""

from ejectable.remedies.registry import REMEDIES, remediation
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation

__all__ = ["REMEDIES", "Remediation", "Request", "Situation", "remediation"]
