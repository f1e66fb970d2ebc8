# SPDX-License-Identifier: GPL-2.0-or-later
"""A small second advisory: start_kernel() is its code, and what its experiment says is given to it."""

from ejectable.advisories import Advisory, CodeUnder, Reach, always, meets
from ejectable.advisories.facts import Facts
from ejectable.experiment import Bench, Result
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation, Status


class Toy(Advisory):
    """Every kernel that has start_kernel() has this defect, or not, as `says` has it; every disk meets it."""

    id = "TOY-1"
    title = "a defect that is made up"
    code = CodeUnder(functions=("start_kernel",))
    operations = (*always(Effect.OOPS, *UNPLUG), *always(Effect.HANG, Operation.SHUTDOWN))
    facts = Facts("TOY-1", "made up", "It is made up.", "init/main.c", "start_kernel", (), (), ())

    def __init__(self, says: Status = Status.AFFECTED) -> None:
        super().__init__()
        self.says = says

    def experiment(self, bench: Bench) -> Result:
        return Result(self.says, "start_kernel() is there", ("it was looked at",))

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        return meets("it is a disk", "it would be gone") if device.kind == "disk" else None
