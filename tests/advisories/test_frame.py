# SPDX-License-Identifier: GPL-2.0-or-later
"""What every advisory gets from the frame: its code found or proven absent, its exposures weighed, its crash told."""

from typing import ClassVar

import msgspec
import pytest

from ejectable.advisories import CodeUnder, Signature, meets, registry, spared, unsure
from ejectable.advisories.code import absence, locate
from ejectable.advisories.exposure import Reach, expose, exposures, race
from ejectable.errors import Missing
from ejectable.experiment import Bench, Result
from ejectable.kernel import Kernel
from ejectable.kernel.program import Image, Program, Symbol, SymbolTable
from ejectable.model import SAFE, Device, Doubt, DoubtKind, Effect, Event, Finding, Frame, Operation, Status
from tests.advisories.toy import Toy

DISK = Device("virtio0", "pci", "0000:00:05.0", "disk", "virtio_blk", ("vda",), "modern", True, "unknown", "")
FOUND = Finding("TOY-1", Status.AFFECTED, None, "", (), conflict=False)


class Named(Kernel):
    """An image that has these functions and nothing else."""

    format = "vmlinux"

    def __init__(self, *functions: str) -> None:
        super().__init__("vmlinux")
        self._symbols = SymbolTable([Symbol(name, 4096 + n, 1, "T") for n, name in enumerate(functions)])

    @property
    def vmlinux(self) -> Program:
        return Program("vmlinux", Image("x86_64", ()), self._symbols, None)


@pytest.mark.parametrize("says", [Status.AFFECTED, Status.FIXED, Status.NOT_AFFECTED])
def test_the_word_of_the_experiment_is_the_finding(says: Status) -> None:
    found = Toy(says).probe(Named("start_kernel"))
    assert (found.advisory, found.status, found.may) == ("TOY-1", says, False)
    assert [(item.kind, item.functions) for item in found.evidence] == [("executed", ("start_kernel",))]


def test_a_kernel_with_none_of_the_functions_is_unknown() -> None:
    found = Toy(Status.FIXED).probe(Named("something_else"))
    assert (found.status, found.evidence) == (Status.UNKNOWN, ())
    assert "start_kernel()" in found.reason


def test_an_experiment_that_lacks_something_is_unknown_with_that_as_its_doubt() -> None:
    class Lacking(Toy):
        def experiment(self, bench: Bench) -> Result:
            raise Missing("There is no struct toy.")

    found = Lacking().probe(Named("start_kernel"))
    assert (found.status, found.doubts[0].where) == (Status.UNKNOWN, "start_kernel")
    assert "There is no struct toy." in found.reason


class Split(Named):
    """An image that starts, and a module that has the rest: of it something is not sure."""

    def __init__(self, kind: str = "t") -> None:
        super().__init__("start_kernel")
        self._module = Program(
            "rest", Image("x86_64", ()), SymbolTable([Symbol("rest", 4096, 1 if kind == "t" else 0, kind)]), None
        )

    def module(self, name: str) -> Program | None:
        return self._module if name == "rest" else None

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        return (Doubt(DoubtKind.IDENTITY, "rest.ko", "It may be another build's."),) if name == "rest" else ()


class Looking(Toy):
    """Its experiment needs a function of another piece of the kernel."""

    code: ClassVar = CodeUnder(functions=("start_kernel",), also=("rest",))

    def experiment(self, bench: Bench) -> Result:
        return Result(self.says, "looked") if bench.elsewhere("rest") else bench.unknown("rest() is missing")


def test_what_is_doubtful_about_another_piece_keeps_a_safe_word_from_being_said() -> None:
    fixed, affected = Looking(Status.FIXED).probe(Split()), Looking(Status.AFFECTED).probe(Split())
    assert (fixed.status, affected.status) == (Status.UNKNOWN, Status.AFFECTED)
    assert [doubt.where for doubt in fixed.doubts] == ["rest.ko"]


def test_a_piece_that_only_calls_a_function_does_not_have_it() -> None:
    assert Looking(Status.AFFECTED).probe(Split("U")).status is Status.UNKNOWN
    assert "rest() is missing" in Looking(Status.FIXED).probe(Split("U")).reason


def test_what_is_executed_of_a_race_is_its_invariant() -> None:
    class Racing(Toy):
        operations: ClassVar = race(Effect.HANG, Operation.SHUTDOWN)

    assert Racing().probe(Named("start_kernel")).may


CODE = CodeUnder(functions=("blk_mq_quiesce_tagset",), beside=("blk_mq_quiesce_queue", "blk_mq_unquiesce_queue"))


def test_code_was_never_there_where_all_that_stands_beside_it_is() -> None:
    found, _ = absence(Named("blk_mq_quiesce_queue", "blk_mq_unquiesce_queue"), CODE)
    assert found is not None
    assert found.says is Status.NOT_AFFECTED


@pytest.mark.parametrize(
    "functions",
    [
        ("blk_mq_quiesce_queue",),
        (),
        ("blk_mq_quiesce_queue", "blk_mq_unquiesce_queue", "blk_mq_quiesce_tagset.part.0"),
    ],
)
def test_a_missing_name_alone_proves_nothing(functions: tuple[str, ...]) -> None:
    assert absence(Named(*functions), CODE)[0] is None
    assert absence(Named(*functions), msgspec.structs.replace(CODE, beside=()))[0] is None


def test_of_functions_that_share_a_name_the_drivers_own_is_taken() -> None:
    code = CodeUnder(functions=("remove_vqs",), among="virtcons_probe")
    assert locate(Named("remove_vqs"), code)[0] is None
    assert locate(Named("remove_vqs", "virtcons_probe"), code)[0] is not None


@pytest.mark.parametrize(
    ("reach", "status", "expected"),
    [
        (meets("it is a disk", "it is gone"), Status.AFFECTED, Status.AFFECTED),
        (meets("it is a disk"), Status.UNKNOWN, Status.UNKNOWN),
        (meets("it is a disk"), Status.FIXED, Status.FIXED),
        (unsure("nobody knows"), Status.AFFECTED, Status.UNKNOWN),
        (unsure("nobody knows"), Status.UNKNOWN, Status.UNKNOWN),
        (unsure("nobody knows"), Status.MITIGATED, Status.MITIGATED),
        (spared("it is none"), Status.AFFECTED, None),
        (spared("it is none"), Status.UNKNOWN, None),
    ],
)
def test_a_device_is_exposed_as_it_and_its_kernel_are(reach: Reach, status: Status, expected: Status | None) -> None:
    found = exposures(reach, msgspec.structs.replace(FOUND, status=status), Toy.operations)
    assert {one.status for one in found} == ({expected} if expected else set())
    assert [one.operation for one in found] == ([one.operation for one in Toy.operations] if expected else [])
    shown = expose(DISK, [(reach, found)])
    word = {Status.AFFECTED: "would_oops", Status.UNKNOWN: "unknown"}.get(expected or Status.FIXED, "safe")
    assert (shown.unplug, bool(shown.reason)) == (word, True)


def test_what_only_a_shutdown_meets_does_not_make_unplugging_unsafe() -> None:
    found = exposures(meets("x"), FOUND, race(Effect.HANG, Operation.SHUTDOWN))
    shown = expose(DISK, [(meets("x"), found)])
    assert (shown.unplug, shown.exposures[0].status) == ("safe", Status.AFFECTED)


def test_the_worst_of_several_defects_is_the_devices_word_and_all_are_listed() -> None:
    fixed = exposures(meets("x"), msgspec.structs.replace(FOUND, status=Status.FIXED), Toy.operations)
    bad = exposures(meets("y", "it is gone"), FOUND, Toy.operations)
    shown = expose(DISK, [(meets("x"), fixed), (meets("y"), bad)])
    assert (shown.unplug, shown.reason) == ("would_oops", "y: it is gone")
    assert shown.exposures == (*fixed, *bad)


PAIR = Signature(
    kinds=("hung-task",), at="blk_mq_quiesce_tagset", told="it waits for the list's lock",
    needs=("nvme_dev_disable",), pair=("blk_mq_freeze_queue_wait", "del_gendisk"),
)  # fmt: skip


def hung(*functions: str) -> Event:
    frames = tuple(Frame(name, 1, 2, None, True) for name in functions)
    return Event(
        "log", 1, None, "hung-task", "hung", functions[0], None, None, "kworker/1", 1, 1, None, None, None,
        False, False, "", frames,
    )  # fmt: skip


def test_a_deadlock_is_told_by_both_of_its_tasks_and_less_surely_by_one() -> None:
    one, other = hung("blk_mq_quiesce_tagset", "nvme_dev_disable"), hung("blk_mq_freeze_queue_wait", "del_gendisk")
    both, alone = PAIR.recognise(one, (one, other)), PAIR.recognise(one, (one,))
    assert both.status is alone.status is Status.AFFECTED
    assert both.confidence > alone.confidence


@pytest.mark.parametrize(
    "functions", [("blk_mq_quiesce_tagset", "scsi_target_block"), ("mutex_lock", "nvme_dev_disable")]
)
def test_a_trace_that_lacks_what_it_needs_is_something_else(functions: tuple[str, ...]) -> None:
    assert PAIR.recognise(hung(*functions)).status in SAFE


def test_a_damaged_report_near_the_signature_is_not_called_something_else() -> None:
    event = hung("blk_mq_quiesce_tagset", "x")
    cut = msgspec.structs.replace(event, truncated=True, doubts=(Doubt(DoubtKind.CUT_OFF, "log:1", "It ends here."),))
    assert PAIR.recognise(cut).status is Status.UNKNOWN


def test_each_advisory_declares_its_parts() -> None:
    class Nameless(Toy):
        pass

    del Nameless
    with pytest.raises(TypeError, match="abstract"):
        type("Empty", (Toy.__mro__[1],), {})()
    for advisory in registry().values():
        assert advisory.operations
        assert advisory.code.functions
        assert advisory.names[0] == advisory.id
