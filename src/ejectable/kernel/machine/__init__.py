# SPDX-License-Identifier: GPL-2.0-or-later
"""The heart: a sandbox in which one function of a shipped kernel binary runs against objects of our making."""

from ejectable.kernel.machine.answers import Answer
from ejectable.kernel.machine.core import Machine, Through
from ejectable.kernel.machine.objects import Layouts, Object
from ejectable.kernel.machine.outcome import Call, Fault, Load, Outcome, Trap

__all__ = ["Answer", "Call", "Fault", "Layouts", "Load", "Machine", "Object", "Outcome", "Through", "Trap"]
