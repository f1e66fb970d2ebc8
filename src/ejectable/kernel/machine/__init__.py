# SPDX-License-Identifier: GPL-2.0-or-later
"""A sandbox in which one function of a shipped kernel binary runs against objects that we lay out."""

from ejectable.kernel.machine.bounds import Bounds
from ejectable.kernel.machine.core import Machine, StepInto
from ejectable.kernel.machine.objects import Layouts, Object
from ejectable.kernel.machine.outcome import Call, Fault, Load, Outcome, Trap
from ejectable.kernel.machine.stubs import Stub

__all__ = ["Bounds", "Call", "Fault", "Layouts", "Load", "Machine", "Object", "Outcome", "StepInto", "Stub", "Trap"]
