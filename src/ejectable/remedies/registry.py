# SPDX-License-Identifier: GPL-2.0-or-later
"""Which remedies there are, in the order in which they are preferred; none is imported before it is used."""

import importlib

from ejectable.errors import WrongUsage
from ejectable.remedies.remediation import Remediation
from ejectable.remedies.steps import Reach

__all__ = ["REMEDIES", "reach_of", "remediation"]

# Name → the class. A fixed kernel is the only cure that nobody has to remember; then what removes legacy devices; then
# the repair of the kernel that runs, which the next boot forgets; then what one lives with meanwhile.
REMEDIES: dict[str, str] = {
    "upgrade": "ejectable.remedies.upgrade:Upgrade",
    "force-legacy": "ejectable.remedies.force_legacy:ForceLegacy",
    "instance-type": "ejectable.remedies.instance_type:InstanceType",
    "live": "ejectable.remedies.live:Live",
    "source-patch": "ejectable.remedies.source_patch:SourcePatch",
    "detach-while-stopped": "ejectable.remedies.detach:DetachWhileStopped",
    "panic-policy": "ejectable.remedies.panic_policy:PanicPolicy",
}


def remediation(name: str) -> Remediation:
    """The remedy of this name; raises `WrongUsage`."""
    if name not in REMEDIES:
        raise WrongUsage(f"There is no remedy {name!r}.", hint=f"There are: {', '.join(REMEDIES)}.")
    module, _, cls = REMEDIES[name].partition(":")
    found: Remediation = getattr(importlib.import_module(module), cls)()
    return found


def reach_of(name: str) -> Reach:
    """What the remedy of this name may do to a machine; raises `WrongUsage`."""
    return remediation(name).reach
