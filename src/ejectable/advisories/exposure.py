# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices meet a defect, by which operation: an advisory says it of a device, here it is held against a kernel.

operations = (*always(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND), *race(Effect.HANG, Operation.SHUTDOWN))

def exposure(self, device, finding):
if device.kind != "balloon":
return None                                        # no such device: nothing to say
if device.attributes.get("features") is None:
return unsure("its features could not be read")
return meets("free page reporting is on", "vp_del_vqs() would take a NULL record") if ... else spared("...")
"""

from collections.abc import Iterable, Sequence

import msgspec

from ejectable.model import EJECT, SAFE, Device, Effect, Exposure, Finding, Likelihood, Operation, Status, worst

__all__ = ["Meeting", "Reach", "always", "expose", "exposures", "meets", "race", "spared", "unplugged", "unsure"]

SAFE_BECAUSE = {
    Status.FIXED: "its kernel has the fix",
    Status.NOT_AFFECTED: "its kernel does not have the faulty code",
    Status.MITIGATED: "the running kernel was repaired",
}
WORDS = ("would_oops", "unknown", "safe")  # of `Device.unplug`, the worst first
HARMFUL = frozenset((Effect.OOPS, Effect.HANG, Effect.CORRUPTION))


class Meeting(msgspec.Struct, frozen=True):
    """An operation that meets a defect, what that does, and how surely."""

    operation: Operation
    effect: Effect
    likelihood: Likelihood = "always"


def always(effect: Effect, *operations: Operation) -> tuple[Meeting, ...]:
    """These operations meet the defect each time."""
    return tuple(Meeting(operation, effect) for operation in operations)


def race(effect: Effect, *operations: Operation) -> tuple[Meeting, ...]:
    """These operations may meet the defect: something else has to happen at the same time."""
    return tuple(Meeting(operation, effect, "race") for operation in operations)


class Reach(msgspec.Struct, frozen=True):
    """Whether a device comes to the faulty code where its kernel has it; `met` is `None` where that is not known.

    `reason` is about the device ("free page reporting is on"), `then` says what would happen on an affected kernel.
    """

    met: bool | None
    reason: str
    then: str = ""
    operations: tuple[Meeting, ...] | None = None  # for this device, where they are not all of the advisory's


def meets(reason: str, then: str = "", *, operations: tuple[Meeting, ...] | None = None) -> Reach:
    """The device comes to the faulty code."""
    return Reach(True, reason, then, operations)


def unsure(reason: str, *, operations: tuple[Meeting, ...] | None = None) -> Reach:
    """Whether it does is not known: `reason` says what was not seen."""
    return Reach(None, reason, "", operations)


def spared(reason: str) -> Reach:
    """The device is of the kind that the defect is about, and does not come to the faulty code."""
    return Reach(False, reason)


def exposures(reach: Reach, finding: Finding, meetings: Sequence[Meeting]) -> tuple[Exposure, ...]:
    """What each operation on this device meets under a kernel of which `finding` is true."""
    if reach.met is False:
        return ()
    status, reason = _weigh(reach, finding)
    told = meetings if reach.operations is None else reach.operations
    return tuple(
        Exposure(finding.advisory, one.operation, one.effect, one.likelihood, status, reason) for one in told
    )  # fmt: skip


def _weigh(reach: Reach, finding: Finding) -> tuple[Status, str]:
    if finding.status in SAFE:
        return finding.status, SAFE_BECAUSE[finding.status]
    if finding.status is Status.UNKNOWN:
        return Status.UNKNOWN, f"{reach.reason}, and whether the kernel has the defect is not known"
    if reach.met is None:
        return Status.UNKNOWN, f"the kernel is affected, and {reach.reason}"
    return Status.AFFECTED, f"{reach.reason}: {reach.then}" if reach.then else reach.reason


def unplugged(found: Iterable[Exposure]) -> str:
    """The worst word for ejecting a device: `would_oops` for whatever harms the machine, `unknown`, or `safe`."""
    words = [one.status for one in found if one.operation in EJECT and one.effect in HARMFUL]
    status = worst(words) if words else Status.NOT_AFFECTED
    return {Status.AFFECTED: "would_oops", Status.UNKNOWN: "unknown"}.get(status, "safe")


def expose(device: Device, said: Sequence[tuple[Reach, tuple[Exposure, ...]]]) -> Device:
    """The device with all exposures, and the worst word for unplugging it with its reason.

    `said` is what each advisory that has something to say of it said.
    """
    if not said:
        return msgspec.structs.replace(device, unplug="safe", reason="no defect that is known here concerns it")
    found = tuple(one for _, several in said for one in several)
    unplug = unplugged(found)
    told = [(unplugged(several), several[0].reason if several else reach.reason) for reach, several in said]
    reason = next(
        (why for word, why in told if word == unplug),
        next(one.reason for one in found) if found else said[0][0].reason,
    )
    return msgspec.structs.replace(device, unplug=unplug, reason=reason, exposures=found)
