# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine runs what compilers make for kernels, stops where a kernel would crash, and says where that was."""

import pytest

from ejectable.errors import DamagedInput, Missing
from ejectable.kernel.machine import Bounds, Layouts, Machine, Object, Outcome
from tests.kernel.compiled import COMPILERS, compiled

DEVICE = """
struct list { struct list *next, *prev; };
struct queue { struct list list; int index; };
struct device { long id; struct list queues; int (*ask)(struct device *, int); unsigned char flag; };
"""
WALK = (
    DEVICE
    + """
int walk(struct device *device)
{
    int sum = 0;
    for (struct list *at = device->queues.next; at != &device->queues; at = at->next)
        sum += device->ask(device, ((struct queue *)at)->index);
    return sum;
}
"""
)
LAYOUTS = Layouts(
    {
        "device": (48, {"id": (0, 8), "queues": (8, 16), "ask": (24, 8), "flag": (32, 1)}),
        "queue": (24, {"list": (0, 16), "index": (16, 4)}),
    }
)
RETPOLINES = {
    "x86_64-gcc": "-mindirect-branch=thunk-extern -mindirect-branch-register -mfunction-return=thunk-extern",
    "x86_64-clang": "-mretpoline-external-thunk -mfunction-return=thunk-extern",
}
every_compiler = pytest.mark.parametrize("compiler", COMPILERS)


def on_stage(machine: Machine) -> Object:
    device = machine.new("device", id=77)
    for index in (3, 4):
        device.sub("queues").append(machine.new("queue", index=index).list)
    return device


def asked_and_answered(compiler: str, options: str = "") -> tuple[Object, Outcome]:
    machine = Machine(compiled(WALK, compiler, options), types=LAYOUTS)
    device = on_stage(machine)
    device.ask = machine.callback("ask", lambda _machine, arguments: arguments[1] * 10)
    return device, machine.call("walk", device)


@every_compiler
@pytest.mark.parametrize("level", ["-O2", "-Os", "-O0"])
def test_a_callback_is_called_with_its_arguments_and_its_answer_is_used(compiler: str, level: str) -> None:
    device, outcome = asked_and_answered(compiler, level)
    assert (outcome.exit, outcome.value, outcome.fault) == ("returned", 70, None)
    assert [(call.name, call.arguments[0], call.arguments[1]) for call in outcome.calls] == [
        ("ask", int(device), 3),
        ("ask", int(device), 4),
    ]


@every_compiler
@pytest.mark.parametrize("level", ["-O2", "-Os", "-O0"])
def test_a_null_callback_is_a_fetch_of_address_0_at_the_return_address_with_the_arguments(
    compiler: str, level: str
) -> None:
    machine = Machine(compiled(WALK, compiler, level), types=LAYOUTS)
    device = on_stage(machine)
    outcome = machine.call("walk", device)
    fault = outcome.fault
    assert fault is not None
    assert (fault.access, fault.address) == ("fetch", 0)
    assert fault.arguments[:2] == (int(device), 3)
    assert fault.at.startswith("walk+")
    assert outcome.chain[0] == fault.at
    # The pointer came from the member, and the machine knows it.
    assert any(load.address == int(device) + 24 and load.value == 0 for load in fault.loads)


@pytest.mark.parametrize("compiler", RETPOLINES)
def test_retpolines_and_return_thunks_do_what_they_stand_for(compiler: str) -> None:
    assert asked_and_answered(compiler, RETPOLINES[compiler])[1].value == 70
    machine = Machine(compiled(WALK, compiler, RETPOLINES[compiler]), types=LAYOUTS)
    device = on_stage(machine)
    fault = machine.call("walk", device).fault
    assert fault is not None
    assert (fault.access, fault.address, fault.arguments[0]) == ("fetch", 0, int(device))
    assert fault.at.startswith("walk+")


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("x86_64-gcc", "-fcf-protection=full"),
        ("x86_64-gcc", "-pg -mfentry"),
        ("x86_64-gcc", "-fsanitize-coverage=trace-pc"),
        ("x86_64-gcc", "-fpatchable-function-entry=16,16"),
        ("aarch64-gcc", "-mbranch-protection=standard"),
        ("aarch64-gcc", "-fpatchable-function-entry=2"),
        ("aarch64-clang", "-mbranch-protection=standard"),
        ("x86_64-clang", "-fsanitize=kcfi"),
        ("aarch64-clang", "-fsanitize=kcfi"),
    ],
)
def test_what_kernels_are_instrumented_with_changes_nothing(compiler: str, options: str) -> None:
    _, outcome = asked_and_answered(compiler, options)
    assert outcome.value == 70, outcome.story()
    assert [call.name for call in outcome.calls] == ["ask", "ask"]


@pytest.mark.parametrize("compiler", ["x86_64-clang", "aarch64-clang"])
def test_with_kcfi_a_null_callback_faults_on_its_hash(compiler: str) -> None:
    machine = Machine(compiled(WALK, compiler, "-fsanitize=kcfi"), types=LAYOUTS)
    fault = machine.call("walk", on_stage(machine)).fault
    assert fault is not None
    assert (fault.access, fault.address) == ("read", (1 << 64) - 4)
    assert fault.at.startswith("walk+")


@pytest.mark.parametrize("compiler", ["x86_64-clang", "aarch64-clang"])
def test_kcfi_still_stops_a_call_of_a_function_of_another_type(compiler: str) -> None:
    source = WALK + 'void other(void) { asm volatile(""); } void (*keep)(void) = other;'
    program = compiled(source, compiler, "-fsanitize=kcfi")
    machine = Machine(program, types=LAYOUTS)
    device = on_stage(machine)
    other = program.symbols.get("other")
    assert other is not None
    device.ask = other.address
    outcome = machine.call("walk", device)
    assert outcome.exit == "trap"
    assert outcome.trap is not None
    assert outcome.trap.at.startswith("walk+")


SYSREG_GUARD = "-mstack-protector-guard=sysreg -mstack-protector-guard-reg=sp_el0 -mstack-protector-guard-offset=1304"
GUARDED = """
void fill(char *buffer);
int guarded(int n) { char buffer[64]; fill(buffer); return buffer[n] + 1; }
"""


@pytest.mark.parametrize(
    ("compiler", "options"),
    [
        ("x86_64-gcc", "-fstack-protector-all"),
        ("x86_64-gcc", "-fstack-protector-all -mstack-protector-guard-reg=gs -mstack-protector-guard-offset=40"),
        (
            "aarch64-gcc",
            f"-fstack-protector-all {SYSREG_GUARD}",
        ),
    ],
)
def test_the_stack_protector_finds_its_canary_and_a_smashed_stack_is_a_trap(compiler: str, options: str) -> None:
    if "guard" not in options:
        options += " -mstack-protector-guard=global"
    program = compiled(GUARDED, compiler, options)
    assert Machine(program).call("guarded", 0).value == 1

    def smash(machine: Machine, arguments: tuple[int, ...]) -> int:
        machine.memory.write(arguments[0], b"\xff" * 200)
        return 0

    outcome = Machine(program, stubs={"fill": smash}).call("guarded", 0)
    assert outcome.exit == "trap"
    assert outcome.trap is not None
    assert outcome.trap.kind == "stack-protector"


@every_compiler
def test_calls_that_leave_are_recorded_and_answered_by_the_policy(compiler: str) -> None:
    source = "int outside(long, int); int inside(long a) { return outside(a, 2) + 1; }"
    program = compiled(source, compiler)
    silent = Machine(program).call("inside", 9)
    assert (silent.value, [(c.name, c.arguments[:2]) for c in silent.calls]) == (1, [("outside", (9, 2))])
    assert Machine(program, stubs={"outside": 41}).call("inside", 9).value == 42


@every_compiler
def test_a_callee_runs_if_the_policy_lets_it_and_the_call_chain_is_told(compiler: str) -> None:
    source = """
    __attribute__((noinline, noipa)) static int deep(int *p) { return *p + 1; }
    __attribute__((noinline, noipa)) static int middle(int *p) { return deep(p) * 3; }
    int top(int *p) { return middle(p) * 5; }
    """
    program = compiled(source, compiler)
    everything = Machine(program, step_into=lambda callee, arguments: True)
    place = everything.alloc()
    assert everything.call("top", place).value == 15
    assert Machine(program).call("top", 0).value == 0
    fault = everything.call("top", 0x10)
    assert fault.fault is not None
    assert (fault.fault.access, fault.fault.address) == ("read", 0x10)
    assert [name.partition("+")[0].partition(".")[0] for name in fault.chain] == ["middle", "top"]
    assert fault.fault.at.startswith("deep")


@every_compiler
def test_a_wild_write_is_a_fault_and_what_was_written_before_stays(compiler: str) -> None:
    source = "void put(int *good, int *bad) { *(volatile int *)good = 7; *(volatile int *)bad = 8; }"
    machine = Machine(compiled(source, compiler))
    good = machine.alloc()
    fault = machine.call("put", good, 0x4141_4141_0000).fault
    assert fault is not None
    assert (fault.access, fault.address) == ("write", 0x4141_4141_0000)
    assert machine.memory.read(good, 4) == b"\7\0\0\0"


@every_compiler
def test_an_endless_loop_ends_with_the_budget(compiler: str) -> None:
    program = compiled("int spin(volatile int *p) { while (!*p) ; return 1; }", compiler)
    machine = Machine(program, bounds=Bounds(instructions=5000))
    outcome = machine.call("spin", machine.alloc())
    assert outcome.exit == "budget"
    assert outcome.instructions <= 5001
    assert outcome.value is None


def test_a_string_instruction_without_an_end_ends_too() -> None:
    program = compiled('void fill(char *p) { asm volatile("rep stosb" : : "D"(p), "c"(-1L), "a"(0)); }', "x86_64-gcc")
    machine = Machine(program, bounds=Bounds(instructions=5000))
    assert machine.call("fill", machine.alloc()).exit in ("budget", "fault")


@every_compiler
def test_a_bug_is_a_trap(compiler: str) -> None:
    outcome = Machine(compiled("void bug(void) { __builtin_trap(); }", compiler)).call("bug")
    assert (outcome.exit, outcome.trap and outcome.trap.kind) == ("trap", "bug")


ASSERTS = (
    DEVICE
    + """
int walk(struct device *device)
{
    if (device->ask(device, 3) != 7)
        STOP;
    return 1;
}
"""
)
STOPS = {
    "x86_64-gcc": 'asm volatile("ud2")',
    "x86_64-clang": 'asm volatile("ud2")',
    "aarch64-gcc": 'asm volatile("brk #0x800")',
    "aarch64-clang": 'asm volatile("brk #0x800")',
}


@every_compiler
@pytest.mark.parametrize("level", ["-O2", "-Os", "-O0"])
def test_a_bug_behind_a_callback_is_a_trap_while_registers_still_point_to_the_callback(
    compiler: str, level: str
) -> None:
    machine = Machine(compiled(f"#define STOP {STOPS[compiler]}\n{ASSERTS}", compiler, level), types=LAYOUTS)
    device = on_stage(machine)
    device.ask = machine.callback("ask", 0)
    outcome = machine.call("walk", device)
    assert (outcome.exit, outcome.trap and outcome.trap.kind) == ("trap", "bug")
    device.ask = machine.callback("ask", 7)
    assert machine.call("walk", device).value == 1


@pytest.mark.parametrize("compiler", ["x86_64-clang", "aarch64-clang"])
@pytest.mark.parametrize("level", ["-O2", "-Os", "-O0", "-O2 -fpatchable-function-entry=11,11"])
def test_the_hash_that_a_callback_of_ours_does_not_have_is_no_trap(compiler: str, level: str) -> None:
    kinds = "" if compiler.startswith("aarch64") and "patchable" in level else level
    outcome = asked_and_answered(compiler, f"{kinds} -fsanitize=kcfi")[1]
    assert (outcome.exit, outcome.value) == ("returned", 70)


@pytest.mark.parametrize("compiler", ["aarch64-gcc", "aarch64-clang"])
def test_return_addresses_may_be_kept_on_a_shadow_stack(compiler: str) -> None:
    outcome = asked_and_answered(compiler, "-fsanitize=shadow-call-stack -ffixed-x18")[1]
    assert (outcome.exit, outcome.value) == ("returned", 70)


@pytest.mark.parametrize("bound", Bounds.__struct_fields__)
def test_a_bound_that_was_reached_is_named(bound: str) -> None:
    source = """
    void *memset(void *, int, unsigned long); int outside(int *); extern int far[1 << 20];
    int work(int **p) { int *q = *p, sum = outside(q); memset(q, 1, 64); for (int i = 0; i < 5; i++) sum += *p[i + 1];
        return sum + *(int *)0x10; }
    """
    program = compiled(source, "x86_64-gcc")
    machine = Machine(program)
    places = [machine.alloc() for _ in range(7)]
    for at, place in enumerate(places[1:]):
        machine.memory.write(places[0] + 8 * at, place.to_bytes(8, "little"))
    whole = machine.call("work", places[0])
    assert (whole.exit, whole.bounds) == ("fault", ())
    narrow = Machine(program, bounds=Bounds(**{bound: 1}))
    if bound == "heap":
        with pytest.raises(DamagedInput):
            narrow.alloc()
        return
    if bound == "recent":
        assert len(narrow.call("work", 0).fault.loads) <= 1  # type: ignore[union-attr]  # it is one
        return
    if bound == "pages":
        narrow.call("work", 0)
    else:
        for _ in places:
            narrow.alloc()
        for at, place in enumerate(places[1:]):
            narrow.memory.write(places[0] + 8 * at, place.to_bytes(8, "little"))
        assert narrow.call("work", places[0]).bounds == (bound,)


@every_compiler
def test_the_same_experiment_gives_the_same_outcome(compiler: str) -> None:
    first, second = (asked_and_answered(compiler)[1] for _ in range(2))
    assert first == second


@every_compiler
def test_data_of_the_image_is_read_where_it_lies(compiler: str) -> None:
    source = "static int table[4000] = {1, 2, 3, [3999] = 9}; int look(int i) { return table[i]; } int *leak = table;"
    machine = Machine(compiled(source, compiler))
    assert [machine.call("look", index).value for index in (0, 2, 3, 3999)] == [1, 3, 0, 9]


def test_a_function_that_is_not_there_is_missing() -> None:
    with pytest.raises(Missing, match="no function nothing"):
        Machine(compiled(WALK, "x86_64-gcc")).call("nothing")


def test_a_type_that_is_not_there_is_missing() -> None:
    with pytest.raises(Missing):
        Machine(compiled(WALK, "x86_64-gcc")).new("device")
    with pytest.raises(Missing, match="no struct nothing"):
        Machine(compiled(WALK, "x86_64-gcc"), types=LAYOUTS).new("nothing")


def test_objects_read_and_write_their_members() -> None:
    machine = Machine(compiled(WALK, "x86_64-gcc"), types=LAYOUTS)
    device = machine.new("device", id=-1, flag=300)
    assert (device.id, device.flag, device.ask) == ((1 << 64) - 1, 44, 0)
    assert int(device.queues) == int(device) + 8
    assert device.has("queues")
    assert not device.has("nothing")
    with pytest.raises(AttributeError, match="struct device has no member nothing"):
        _ = device.nothing
    queue = machine.new("queue")
    device.sub("queues").append(queue.list)
    assert list(device.sub("queues").entries()) == [int(queue.list)]


def test_an_object_larger_than_the_room_is_refused() -> None:
    machine = Machine(compiled(WALK, "x86_64-gcc"))
    with pytest.raises(DamagedInput):
        machine.alloc(1 << 40)


def test_contents_come_back_with_a_snapshot() -> None:
    machine = Machine(compiled(WALK, "x86_64-gcc"), types=LAYOUTS)
    device = machine.new("device", id=5)
    before = machine.memory.snapshot()
    device.id = 6
    later = machine.new("queue", index=9)
    machine.memory.restore(before)
    assert (device.id, later.index) == (5, 0)
