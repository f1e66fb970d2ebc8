# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment: unplug a legacy device, in the machine, and see whether the kernel calls a null pointer.

A pair of runs decides. `affected`: as the kernel's own probe leaves a legacy device, vp_del_vqs() calls a null pointer
of it, asking about a queue; with a function in just that place it asks about every queue and deletes them all.
`fixed`: it deletes all queues, and the question is found behind a condition that a legacy device does not meet.
`not_affected`: it deletes all queues and there is no such question. Anything else is `unknown`, and says why.
"""

import re

import msgspec

from ejectable.advisories.cve_2024_42134.stage import QUEUES, Stage
from ejectable.errors import EjectableError
from ejectable.kernel import Program
from ejectable.kernel.machine import Outcome
from ejectable.model import Status

__all__ = ["FUNCTION", "Result", "experiment"]

FUNCTION = "vp_del_vqs"
# What says whether a device is legacy: set by virtio_pci_probe(); and the features, of which a legacy device has no
# more than 32 (virtio 1.3, section 2.2), VIRTIO_F_ADMIN_VQ being number 41.
TELLS_LEGACY = re.compile(r"is_legacy|vdev\.features\w*|features\w*")
# What any device may have, a legacy one too: how its interrupts were set up.
TELLS_NOTHING = re.compile(r"\w*(?:msix|intx|vectors|vector|affinity)\w*")
MOST_FLIPS = 48


class Result(msgspec.Struct, frozen=True):
    """What came out, for people and for the other evidence."""

    says: Status
    detail: str
    story: tuple[str, ...]
    slot: int | None = None  # offset of the callback in the device, where one was found
    site: int | None = None  # address of the instruction that calls it
    null_called: bool = False  # a legacy device's null pointer was called
    legacy_refused: bool = False  # virtio_pci_probe() itself turned the legacy device away


def experiment(program: Program) -> Result:
    """Run it on a program that has vp_del_vqs()."""
    try:
        return _Experiment(Stage(program)).result()
    except EjectableError as error:
        detail = f"{FUNCTION}() could not be run here: {error.message}"
        return Result(Status.UNKNOWN, detail, (detail,))


class _Experiment:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.story: list[str] = []

    def say(self, line: str) -> None:
        self.story.append(line)

    def unknown(self, detail: str, slot: int | None = None, site: int | None = None, *, null: bool = False) -> Result:
        self.say(detail)
        return Result(Status.UNKNOWN, detail, tuple(self.story), slot, site, null_called=null)

    def result(self) -> Result:
        stage = self.stage
        if not stage.probe():
            self.story += stage.notes
            if stage.refused and stage.program.symbols.function("virtio_pci_legacy_probe") is None:
                detail = "virtio_pci_probe() turns a legacy device away: there is no legacy driver in this kernel"
                self.say(detail)
                return Result(Status.NOT_AFFECTED, detail, tuple(self.story), legacy_refused=True)
            self.say("The device was laid out without the kernel's own probe.")
        else:
            names = [
                stage.program.symbols.describe(value).partition("+")[0] for value in stage.legacy_callbacks.values()
            ]
            self.say(f"{stage.probed_by}() probed a legacy device and set {', '.join(dict.fromkeys(names))}.")
        null = stage.run(FUNCTION)
        self.say(f"As it was left: {null.story()}.")
        slot = stage.null_callback(null)
        if slot is not None:
            return self.crashed(null, slot)
        if null.exit != "returned":
            return self.unknown(f"the run of {FUNCTION}() did not come to its end: {null.story()}")
        if not self.walked(null):
            return self.unknown(f"{FUNCTION}() returned, but was not seen to delete the device's queues")
        self.say(f"Both queues were deleted ({stage.deleted(null)} calls of the device's del_vq).")
        return self.survived(null)

    def walked(self, outcome: Outcome) -> bool:
        return outcome.exit == "returned" and self.stage.deleted(outcome) >= len(QUEUES)

    def crashed(self, null: Outcome, slot: int) -> Result:
        """The null run called a null pointer: does a function in its place make all the difference?"""
        stage, fault = self.stage, null.fault
        assert fault is not None
        name = stage.name(slot)
        asked = stage.machine.callback("is_avq", 0)
        other = stage.run(FUNCTION, {slot: (asked, 8)})
        calls = other.called("is_avq")
        self.say(f"With a function at {slot:#x} ({name}): {other.story()}; it was asked {len(calls)} times.")
        as_predicted = {call.arguments[1] & 0xFFFF_FFFF for call in calls if stage.asks(call.arguments)} == set(QUEUES)
        if not as_predicted or not (self.walked(other) or not stage.legacy_callbacks):
            return self.unknown("a null pointer was called, but the run with a function in its place did not go as"
                                " predicted", slot=slot, site=fault.site, null=True)  # fmt: skip
        if not stage.legacy_callbacks:
            # Nobody knows what the legacy probe would have set: it might have set this one.
            return self.unknown(f"{fault.at} calls {name} without a test, but whether the legacy probe sets it is not"
                                " known", slot=slot, site=fault.site, null=True)  # fmt: skip
        detail = (
            f"{FUNCTION}() was run on a legacy device: at {fault.at} it called address 0, read from {name}, with the"
            f" device and queue {fault.arguments[1] & 0xFFFF_FFFF} as arguments; with a function there it deletes all"
            " queues"
        )
        return Result(Status.AFFECTED, detail, tuple(self.story), slot, fault.site, null_called=True)

    def survived(self, null: Outcome) -> Result:
        """All queues were deleted: is there a question about the queue at all, and what keeps it from being asked?"""
        stage = self.stage
        member = stage.member("is_avq")
        set_by_probe = next(
            (offset for offset, target in stage.legacy_callbacks.items()
             if any(stage.asks(arguments) and callee.address == target for callee, arguments in stage.followed)),
            None,
        )  # fmt: skip
        if set_by_probe is not None:
            function = stage.program.symbols.describe(stage.legacy_callbacks[set_by_probe]).partition("+")[0]
            detail = f"the legacy probe sets {stage.name(set_by_probe)} to {function}(), and vp_del_vqs() calls that"
            return self.fixed(detail, set_by_probe, None)
        if stage.types is not None and member is None:
            detail = f"{FUNCTION}() was run on a legacy device and deleted its queues; the callback does not exist"
            self.say(detail)
            return Result(Status.NOT_AFFECTED, detail, tuple(self.story))
        for slot in [member] if member is not None else self.null_pointers(null):
            outcome = stage.run(FUNCTION, {slot: (stage.machine.callback("is_avq", 0), 8)})
            calls = [call for call in outcome.called("is_avq") if stage.asks(call.arguments)]
            if calls:
                self.say(f"With a function at {slot:#x} ({stage.name(slot)}): it was asked {len(calls)} times.")
                detail = (
                    f"{FUNCTION}() tests {stage.name(slot)} before it calls it: a legacy device's queues were deleted"
                )
                return self.fixed(detail, slot, calls[0].site)
        return self.guarded_otherwise(null, member)

    def fixed(self, detail: str, slot: int | None, site: int | None) -> Result:
        self.say(detail)
        return Result(Status.FIXED, detail, tuple(self.story), slot, site)

    def null_pointers(self, outcome: Outcome) -> list[int]:
        """Offsets in the device at which a null pointer was read; each may be a callback that was tested."""
        found = [slot for load in outcome.loads
                 if load.size == 8 and not load.value and (slot := self.stage.slot(load)) is not None]  # fmt: skip
        return list(dict.fromkeys(found))

    def guarded_otherwise(self, null: Outcome, member: int | None) -> Result:
        """Change, one by one, what was read of the device, and see whether the question is asked then."""
        stage = self.stage
        seen: dict[tuple[int, int], int] = {}
        for load in null.loads:
            slot = stage.slot(load)
            if slot is not None and slot & ~7 not in stage.legacy_callbacks and not self.is_list(slot):
                seen.setdefault((slot, load.size), load.value)
        traced = set(null.trace)
        for (slot, size), value in list(seen.items())[:MOST_FLIPS]:
            flipped = 0 if value else (1 << 8 * size) - 1
            if size == 8 and value == 0:
                flipped = 0xFFFF_FFFF_0000_0000  # the features that a legacy device cannot have
            outcome = stage.run(FUNCTION, {slot: (flipped, size)})
            traced.update(outcome.trace)
            asked = stage.null_callback(outcome)
            if asked is None:
                continue
            assert outcome.fault is not None
            site, condition = outcome.fault.site, stage.name(slot)
            self.say(f"With {flipped:#x} in {condition}: {outcome.story()}.")
            if TELLS_LEGACY.fullmatch(condition.partition("+")[0]) or (
                stage.types is None and self.tells_legacy(slot, size)
            ):
                detail = (
                    f"{FUNCTION}() calls {stage.name(asked)} only behind a test of {condition}, which no legacy device"
                    " passes"
                )
                return self.fixed(detail, asked, site)
            if TELLS_NOTHING.fullmatch(condition.partition("+")[0]):
                detail = (
                    f"{FUNCTION}() calls {stage.name(asked)} without a test of it, if {condition} is set, which a"
                    " legacy device may have"
                )
                self.say(detail)
                return Result(Status.AFFECTED, detail, tuple(self.story), asked, site)
            detail = (
                f"{FUNCTION}() calls {stage.name(asked)} depending on {condition}; whether a legacy device can have"
                " that is not known"
            )
            return self.unknown(detail, slot=asked, site=site)
        return self.never_asked(traced, member)

    def is_list(self, slot: int) -> bool:
        start = self.stage.vqs_offset
        return start is not None and start <= slot < start + 16

    def tells_legacy(self, slot: int, size: int) -> bool:
        """Without types: whether this is what the probe of a legacy device set, or its features above the 32nd."""
        stage = self.stage
        if any(place in stage.legacy_scalars for place in range(slot, slot + size)):
            return True
        # struct virtio_device: the features follow the list of queues (include/linux/virtio.h, since v2.6.38).
        features = (stage.vqs_offset or 0) + 16
        return stage.vqs_offset is not None and (
            (slot == features and size == 8) or features + 4 <= slot < features + 8
        )

    def never_asked(self, traced: set[int], member: int | None) -> Result:
        """No question was found. That counts only if no indirect call was left out."""
        from ejectable.kernel.code import indirect_calls

        stage = self.stage
        entered = [FUNCTION, *dict.fromkeys(callee.name for callee, _ in stage.followed)]
        left_out = [
            call
            for name in entered
            for call in indirect_calls(stage.program, name)
            if call.site not in traced and (call.loaded_from is None or call.loaded_from not in stage.legacy_callbacks)
        ]
        if left_out:
            where = ", ".join(stage.program.symbols.describe(call.site) for call in left_out)
            return self.unknown(
                f"the queues of a legacy device were deleted, but the calls at {where} were never reached"
            )
        what = "is there and never called" if member is not None else "is not there"
        detail = f"{FUNCTION}() was run on a legacy device and deleted its queues; the callback {what}"
        self.say(detail)
        return Result(Status.NOT_AFFECTED, detail, tuple(self.story))
