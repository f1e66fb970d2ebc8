# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment: unplug a legacy device, in the machine, and see whether the kernel calls a null pointer.

A pair of runs decides. `affected`: as the kernel's own probe leaves a legacy device, vp_del_vqs() calls a null pointer
of it, asking about a queue; with a function in just that place it asks about every queue and deletes them all.
`fixed`: it deletes all queues, and the question is found behind a condition that a legacy device does not meet.
`not_affected`: it deletes all queues and there is no such question. Anything else is `unknown`, and says why.
"""

import re
from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from ejectable.advisories.cve_2024_42134.coverage import LOW, Condition, calls, conditions, depends, untried
from ejectable.advisories.cve_2024_42134.declarations import callback, drives_legacy
from ejectable.advisories.cve_2024_42134.scene import DEFAULT, QUEUES, Bounds, Scene, calls_null
from ejectable.errors import EjectableError
from ejectable.experiment import Result as BenchResult
from ejectable.kernel import Program
from ejectable.kernel.code import IndirectCall
from ejectable.kernel.machine import Bounds as MachineBounds
from ejectable.kernel.machine import Outcome
from ejectable.kernel.program import Symbol
from ejectable.model import Doubt, DoubtKind, Justification, Status, earned

__all__ = ["FUNCTION", "Result", "experiment"]

FUNCTION = "vp_del_vqs"
WORST = {Status.NOT_AFFECTED: 0, Status.FIXED: 1, Status.UNKNOWN: 2, Status.AFFECTED: 3}
# What any device may have, a legacy one too: how its interrupts were set up.
TELLS_NOTHING = re.compile(r"\w{0,64}(?:msix|intx|vectors|vector|affinity)\w{0,64}")


class Result(BenchResult, frozen=True):
    """What came out, for people and for the other evidence."""

    slot: int | None = None  # offset of the callback in the device, where one was found
    site: int | None = None  # address of the instruction that calls it
    null_called: bool = False  # a legacy device's null pointer was called


def experiment(program: Program, bounds: MachineBounds = DEFAULT) -> Result:
    """Run it on a program that has vp_del_vqs(). Where a compiler has cloned it, the worst of the clones counts."""
    own = bounds if isinstance(bounds, Bounds) else Bounds(**msgspec.structs.asdict(bounds))
    clones = [_experiment(program, function, own) for function in _clones(program)]
    return max(clones, key=lambda one: WORST[one.says], default=_not_run(f"{FUNCTION}() is there only in parts"))


def _experiment(program: Program, function: Symbol, bounds: Bounds) -> Result:
    try:
        scene = Scene(program, bounds)
        return _bounded(_Experiment(scene, function).result(), scene)
    except EjectableError as error:
        return _not_run(" ".join(filter(None, (f"{FUNCTION}() could not be run here: {error.message}", error.hint))))


def _not_run(detail: str) -> Result:
    return Result(Status.UNKNOWN, detail, (detail,), doubts=(Doubt(DoubtKind.UNPARSED, FUNCTION, detail),))


def _bounded(result: Result, scene: Scene) -> Result:
    """The result with a doubt for each bound that was reached: a safe word becomes `unknown`."""
    functions = tuple(dict.fromkeys((FUNCTION, *(symbol.name for symbol in scene.met.values()))))
    doubts = [Doubt(DoubtKind.BOUND, FUNCTION, f"{FUNCTION}() was run, and not all was seen: {what}")
              for what in scene.reached]  # fmt: skip
    says = earned(result.says, doubts)
    if says is not result.says:
        result = replace(result, detail=doubts[0].detail, story=(*result.story, *(doubt.detail for doubt in doubts)))
    return replace(result, says=says, doubts=(*result.doubts, *doubts), functions=functions)


def _clones(program: Program) -> list[Symbol]:
    """Each whole function of this name once; `.cold` and `.part.0` are no whole ones."""
    whole = [s for s in program.symbols.variants(FUNCTION) if ".cold" not in s.name and ".part." not in s.name]
    return list({symbol.address: symbol for symbol in whole if symbol.kind in "tTwW"}.values())


class _Experiment:
    def __init__(self, scene: Scene, function: Symbol) -> None:
        self.scene = scene
        self.function = function
        self.story: list[str] = []

    def say(self, line: str) -> None:
        self.story.append(line)

    def unknown(
        self, detail: str, slot: int | None = None, site: int | None = None, *, null: bool = False, doubt: bool = True
    ) -> Result:
        self.say(detail)
        doubts = (Doubt(DoubtKind.CONTRADICTED if null else DoubtKind.UNPARSED, FUNCTION, detail),) if doubt else ()
        return Result(Status.UNKNOWN, detail, tuple(self.story), doubts, slot=slot, site=site, null_called=null)

    def incomplete(self, detail: str, outcome: Outcome) -> Result:
        """The run broke off. Where it did for our own reasons the kernel's declarations may tell, if no call is left
        over that may be the question.
        """
        called_null = outcome.fault is not None and calls_null(outcome.fault)
        left = untried(self.scene, self.function, set(outcome.trace))
        return self.unknown(detail, doubt=called_null or bool(left))

    def result(self) -> Result:
        scene = self.scene
        if not scene.probe():
            self.story += scene.notes
            if scene.refused and not drives_legacy(scene.program):
                detail = "virtio_pci_probe() turns a legacy device away: there is no legacy driver in this kernel"
                self.say(detail)
                return Result(Status.NOT_AFFECTED, detail, tuple(self.story), justification=Justification.NOT_REACHED)
            self.say("The device was laid out without the kernel's own probe.")
        else:
            names = [
                scene.program.symbols.describe(value).partition("+")[0] for value in scene.legacy_callbacks.values()
            ]
            self.say(f"{scene.probed_by}() probed a legacy device and set {', '.join(dict.fromkeys(names))}.")
        null = scene.run(self.function)
        self.say(f"As it was left: {null.story()}.")
        slot = scene.null_callback(null)
        if slot is not None:
            return self.crashed(null, slot)
        if null.exit != "returned":
            return self.incomplete(f"the run of {FUNCTION}() did not come to its end: {null.story()}", null)
        if not self.walked(null):
            return self.incomplete(f"{FUNCTION}() returned, but was not seen to delete the device's queues", null)
        self.say(f"Both queues were deleted ({scene.deleted(null)} calls of the device's del_vq).")
        return self.survived(null)

    def walked(self, outcome: Outcome) -> bool:
        return outcome.exit == "returned" and self.scene.deleted(outcome) >= len(QUEUES)

    def crashed(self, null: Outcome, slot: int) -> Result:
        """The null run called a null pointer: does a function in its place make all the difference?"""
        scene, fault = self.scene, null.fault
        assert fault is not None
        name, place = scene.name(slot), scene.program.symbols.describe(fault.site)
        asked = scene.machine.callback("is_avq", 0)
        other = scene.run(self.function, {slot: (asked, 8)})
        questions = other.called("is_avq")
        self.say(f"With a function at {slot:#x} ({name}): {other.story()}; it was asked {len(questions)} times.")
        asked_about = {call.arguments[1] & 0xFFFF_FFFF for call in questions if scene.asks(call.arguments)}
        # Tested the wrong way round, it is called only where there is none.
        as_predicted = asked_about == set(QUEUES) or (not questions and self.walked(other))
        if not as_predicted or not (self.walked(other) or not scene.legacy_callbacks):
            return self.unknown("a null pointer was called, but the run with a function in its place did not go as"
                                " predicted", slot=slot, site=fault.site, null=True)  # fmt: skip
        if not scene.legacy_callbacks:
            # Nobody knows what the legacy probe would have set: it might have set this one.
            return self.unknown(f"{place} calls {name} without a test, but whether the legacy probe sets it is not"
                                " known", slot=slot, site=fault.site, null=True)  # fmt: skip
        detail = (
            f"{FUNCTION}() was run on a legacy device: at {place} it called address 0, read from {name}, with the"
            f" device and queue {fault.arguments[1] & 0xFFFF_FFFF} as arguments; with a function there it deletes all"
            " queues"
        )
        return Result(Status.AFFECTED, detail, tuple(self.story), slot=slot, site=fault.site, null_called=True)

    def survived(self, null: Outcome) -> Result:
        """All queues were deleted: is there a question about the queue at all, and what keeps it from being asked?"""
        scene = self.scene
        answering = next(
            (slot for slot, target in scene.legacy_callbacks.items()
             if any(scene.asks(arguments) and callee.address == target for callee, arguments in scene.followed)),
            None,
        )  # fmt: skip
        if answering is not None:
            return self.answered(answering, null)
        member = callback(scene.program.types)
        if not untried(scene, self.function, set(null.trace)):
            what = "is there and never called" if member is not None else "does not exist"
            return self.absent(f"{FUNCTION}() was run on a legacy device and deleted its queues; the callback {what}")
        traced, found, asking = set(null.trace), None, frozenset[int]()
        for slot in [member.offset] if member is not None else self.null_pointers(null):
            outcome = scene.run(self.function, {slot: (scene.machine.callback("is_avq", 0), 8)})
            asked = [call for call in outcome.called("is_avq") if scene.asks(call.arguments)]
            if asked:
                self.say(f"With a function at {slot:#x} ({scene.name(slot)}): it was asked {len(asked)} times.")
                traced.update(outcome.trace)
                asking = frozenset(call.site for call in outcome.called("is_avq"))
                found = _Guard(slot, asked[0].site, "tests {callback} before it calls it")
                break
        # What is tested may still be another device's pointer, if some variable of the kernel's leads to it.
        elsewhere = any(scene.is_data(load.address) for load in null.loads)
        sure = found is not None and not elsewhere and self.tested_everywhere(found.slot, asking)
        if found is not None and sure and not untried(scene, self.function, traced):
            return self.guarded(found)
        return self.searched(null, traced, found)

    def answered(self, slot: int, null: Outcome) -> Result:
        """The legacy probe set the callback, and it was called: but does it do so for every legacy device?"""
        scene = self.scene
        function = scene.program.symbols.describe(scene.legacy_callbacks[slot]).partition("+")[0]
        detail = f"the legacy probe sets {scene.name(slot)} to {function}(), and {FUNCTION}() calls that"
        decides = depends(scene, slot)
        if decides is not None:
            return self.unknown(f"{detail}; but whether it sets it depends on {decides}", slot=slot)
        left = untried(scene, self.function, set(null.trace))
        return self.unreached(left) if left else self.fixed(detail, slot, None)

    def tested_everywhere(self, slot: int, asking: Collection[int]) -> bool:
        """Whether each call through this place of the device, those at `asking` among them, is seen to be tested right
        in front of it.
        """
        through = [call for call in calls(self.scene, self.function) if call.loaded_from == slot]
        return all(call.tested for call in through) and bool(asking) and {call.site for call in through} >= {*asking}

    def guarded(self, guard: "_Guard") -> Result:
        what = guard.what.format(callback=self.scene.name(guard.slot))
        return self.fixed(f"{FUNCTION}() {what}: a legacy device's queues were deleted", guard.slot, guard.site)

    def fixed(self, detail: str, slot: int | None, site: int | None) -> Result:
        self.say(detail)
        return Result(Status.FIXED, detail, tuple(self.story), slot=slot, site=site)

    def absent(self, detail: str) -> Result:
        self.say(detail)
        return Result(Status.NOT_AFFECTED, detail, tuple(self.story))

    def unreached(self, left: Sequence[IndirectCall]) -> Result:
        where = ", ".join(self.scene.program.symbols.describe(call.site) for call in left)
        return self.unknown(f"the queues of a legacy device were deleted, but the calls at {where} were never reached")

    def null_pointers(self, outcome: Outcome) -> list[int]:
        """Offsets in the device at which a null pointer was read; each may be a callback that was tested."""
        found = [slot for load in outcome.loads
                 if load.size == 8 and not load.value and (slot := self.scene.slot(load)) is not None]  # fmt: skip
        return list(dict.fromkeys(found))

    def searched(self, null: Outcome, traced: set[int], found: "_Guard | None") -> Result:
        """Change, one by one, what was read, and see whether the question is asked of a null pointer then."""
        scene = self.scene
        for condition in conditions(scene, self.function, null.loads):
            outcome = scene.run(self.function, pokes={condition.address: (condition.value, condition.size)})
            traced.update(outcome.trace)
            asked = scene.null_callback(outcome, any_queue=True)
            fault = outcome.fault
            if asked is None and fault is not None and calls_null(fault):
                where = scene.program.symbols.describe(fault.site)
                return self.unknown(f"with {condition.value:#x} in {condition.name} a null pointer is called at"
                                    f" {where}; whether a legacy device can have that is not known")  # fmt: skip
            if asked is None or fault is None:
                continue
            site, name = fault.site, scene.name(asked)
            self.say(f"With {condition.value:#x} in {condition.name}: {outcome.story()}.")
            if self.no_legacy_device(condition):
                found = found or _Guard(asked, site, f"calls {{callback}} only behind a test of {condition.name}")
                continue
            if self.any_legacy_device(condition):
                detail = (
                    f"{FUNCTION}() calls {name} without a test of it, if {condition.name} is set, which a legacy"
                    " device may have"
                )
                self.say(detail)
                return Result(Status.AFFECTED, detail, tuple(self.story), slot=asked, site=site, null_called=True)
            return self.unknown(
                f"{FUNCTION}() calls {name} depending on {condition.name}; whether a legacy device can have that is"
                " not known", slot=asked, site=site,
            )  # fmt: skip
        left = untried(scene, self.function, traced)
        if left:
            return self.unreached(left)
        if found is not None:
            return self.guarded(found)
        return self.absent(f"{FUNCTION}() was run on a legacy device and deleted its queues; the callback is not there")

    def no_legacy_device(self, condition: Condition) -> bool:
        """Whether the changed value is one that no legacy device has."""
        scene, slot = self.scene, condition.slot
        if slot is None:
            return False
        features = self.features
        if features is not None and features <= slot < features + 8:
            return slot >= features + 4 or (condition.size == 8 and not condition.value & LOW)
        if scene.types is None:
            # What the probe of a legacy device set to true.
            return condition.size == 1 and scene.legacy_scalars.get(slot) == 1
        return condition.name == "is_legacy"

    def any_legacy_device(self, condition: Condition) -> bool:
        """Whether a legacy device may well have the changed value: how its interrupts were set up, its features."""
        slot, features = condition.slot, self.features
        if slot is None:
            return False
        if features is not None and features <= slot < features + 4:
            return not condition.value >> 32
        return TELLS_NOTHING.fullmatch(condition.name.partition("+")[0]) is not None

    @property
    def features(self) -> int | None:
        """The offset of the negotiated features; of its 64 bits a legacy device has the lower half."""
        scene = self.scene
        if scene.types is not None:
            member = scene.types.member("virtio_pci_device", "vdev.features")
            return member.offset if member else None
        # struct virtio_device: they follow the list of queues (include/linux/virtio.h, since v2.6.38).
        return None if scene.vqs_offset is None else scene.vqs_offset + 16


class _Guard(msgspec.Struct, frozen=True):
    """Something that keeps a legacy device from the call at `site` through `slot`."""

    slot: int
    site: int
    what: str  # "{callback}" stands for the pointer
