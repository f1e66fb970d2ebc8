# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench sees in compiled code what an experiment asks for, on both architectures and with both compilers."""

import pytest

from ejectable.errors import Missing
from ejectable.experiment import (
    Bench,
    Scene,
    answers,
    calls,
    calls_before,
    ends,
    freed_inside,
    freed_twice,
    locked_twice,
    order_of,
    reads_null,
    spins,
    touched_after_free,
    traps,
    waits_under,
    warns,
)
from ejectable.kernel.machine import Bounds, Layouts, Outcome
from ejectable.model import DoubtKind, Status
from tests.kernel.compiled import COMPILERS, compiled

SOURCE = """
typedef unsigned long u64;
extern void kfree(void *), mutex_lock(void *), mutex_unlock(void *), flush_work(void *), note(u64), detach(void *);
extern void pci_lock_rescan_remove(void), pci_unlock_rescan_remove(void), refcount_warn_saturate(void *, int);
extern u64 status(void *), take(void *), _find_next_bit(void *, u64, u64), ktime_get(void);
struct device { u64 id; u64 *table; u64 lock; u64 other; };

u64 use_after(struct device *d) { kfree(d); return d->id; }
void twice(struct device *d) { kfree(d); note(1); kfree(d); }
void inside(struct device *d) { kfree(&d->lock); }
void early(struct device *d) { note(d->id); kfree(d); }
void self_deadlock(void) { pci_lock_rescan_remove(); note(1); pci_lock_rescan_remove(); }
void ordered(struct device *d) { mutex_lock(&d->lock); mutex_lock(&d->other); mutex_unlock(&d->other);
	mutex_unlock(&d->lock); flush_work(d); }
void waiting(struct device *d) { mutex_lock(&d->lock); flush_work(d); mutex_unlock(&d->lock); }
void poll(struct device *d) { while (status(d) == 0xff) note(2); }
u64 drain(struct device *d) { u64 n = 0; while (take(d)) n++; return n; }
u64 sum(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h, u64 i, u64 j)
{ return g * 1000 + h * 100 + i * 10 + j; }
u64 null(struct device *d) { return d->table[1]; }
u64 next_processor(u64 *mask) { return _find_next_bit(mask, 1, 1); }
u64 bits(u64 *mask) { return _find_next_bit(mask, 128, 3) * 1000 + _find_next_bit(mask, 128, 70); }
void saturate(struct device *d) { refcount_warn_saturate(d, 3); note(3); }
u64 clock(void) { u64 first = ktime_get(); return ktime_get() > first; }
void stop(void) { __builtin_trap(); }
struct ops { u64 owner; u64 (*remove)(struct device *); } driver = { 7, drain }, empty = { 0 };
u64 through(struct ops *o, struct device *d) { return o->remove(d) + d[1].id; }
"""
LAYOUTS = Layouts(
    {
        "device": (32, {"id": (0, 8), "table": (8, 8), "lock": (16, 8), "other": (24, 8)}),
        "ops": (16, {"owner": (0, 8), "remove": (8, 8)}),
    }
)
BOUNDS = Bounds()
every_compiler = pytest.mark.parametrize("compiler", COMPILERS)


def _bench(compiler: str, bounds: Bounds = BOUNDS) -> Bench:
    return Bench(compiled(SOURCE, compiler), types=LAYOUTS, bounds=bounds)


def _freeing(compiler: str, function: str) -> tuple[Scene, Outcome]:
    scene = _bench(compiler).scene(free=True)
    return scene, scene.run(function, scene.new("device", id=7))


@every_compiler
def test_memory_that_was_freed_is_seen_touched_freed_again_and_freed_in_its_middle(compiler: str) -> None:
    scene, outcome = _freeing(compiler, "use_after")
    seen = touched_after_free(scene, outcome)
    assert seen
    assert "the device" in seen.detail
    assert not freed_twice(scene, outcome)

    scene, outcome = _freeing(compiler, "twice")
    assert freed_twice(scene, outcome)
    assert not touched_after_free(scene, outcome)

    scene, outcome = _freeing(compiler, "inside")
    assert freed_inside(scene, outcome)

    scene, outcome = _freeing(compiler, "early")
    assert not any(look(scene, outcome) for look in (touched_after_free, freed_twice, freed_inside))
    assert ends(outcome)


@every_compiler
def test_locks_are_seen_taken_twice_in_order_and_waited_under(compiler: str) -> None:
    bench = _bench(compiler)
    assert locked_twice(bench.scene().run("self_deadlock"), "pci_rescan_remove_lock")
    results = {}
    for function in ("ordered", "waiting"):
        scene = bench.scene()
        device = scene.new("device")
        lock, other = (int(device) + scene.offset("device", name) for name in ("lock", "other"))
        outcome = scene.run(function, device)
        results[function] = (
            bool(order_of(outcome, lock, other)),
            bool(order_of(outcome, other, lock)),
            bool(waits_under(outcome, lock)),
            bool(locked_twice(outcome)),
        )
    assert results == {"ordered": (True, False, False, False), "waiting": (False, False, True, False)}


@every_compiler
def test_a_loop_without_end_is_told_from_one_that_ends_and_from_one_that_is_only_long(compiler: str) -> None:
    bench = _bench(compiler, Bounds(instructions=5000))
    stuck = bench.scene(stubs={"status": 0xFF})
    assert spins(stuck.run("poll", stuck.new("device")))
    ready = bench.scene(stubs={"status": answers(0xFF, 0xFF, then=1)})
    outcome = ready.run("poll", ready.new("device"))
    assert ends(outcome)
    assert not spins(outcome)
    counting = iter(range(1, 10**6))
    long = bench.scene(stubs={"take": lambda _machine, _arguments: next(counting)})
    outcome = long.run("drain", long.new("device"))
    assert outcome.exit == "budget"
    assert not spins(outcome)


@every_compiler
def test_answers_come_in_their_order_and_more_arguments_than_registers_arrive(compiler: str) -> None:
    bench = _bench(compiler)
    scene = bench.scene(stubs={"take": answers(1, 1, 1)})
    assert scene.run("drain", scene.new("device")).value == 3
    assert bench.scene().run("sum", *range(1, 11)).value == 7000 + 800 + 90 + 10


@every_compiler
def test_services_of_the_kernel_answer_truly(compiler: str) -> None:
    bench = _bench(compiler)
    scene = bench.scene()
    mask = scene.alloc(16)
    scene.machine.memory.write(mask, (1 << 5 | 1 << 100).to_bytes(16, "little"))
    assert scene.run("bits", mask).value == 5 * 1000 + 100
    # A loop over one processor looks for the next one behind the last, and finds none.
    assert scene.run("next_processor", mask).value == 1
    assert bench.scene().run("clock").value == 1


@every_compiler
def test_a_report_of_the_kernel_s_is_a_warning_and_a_trap_is_an_end(compiler: str) -> None:
    bench = _bench(compiler)
    scene = bench.scene()
    outcome = scene.run("saturate", scene.new("device"))
    assert warns(outcome)
    assert calls(outcome, "note", times=1)
    assert calls_before(outcome, ["refcount_warn_saturate"], ["note"])
    assert traps(bench.scene().run("stop"))


@every_compiler
def test_a_pair_of_runs_decides_and_anything_else_is_unknown(compiler: str) -> None:
    bench = _bench(compiler)
    empty, full = bench.scene(), bench.scene()
    null = empty.run("null", empty.new("device"))
    control = full.run("null", full.new("device", table=full.pointers(1, 2)))
    decided = bench.decide(affected=reads_null(null, at=8), fixed=ends(null), control=ends(control))
    assert (decided.says, decided.functions) == (Status.AFFECTED, ("null",))
    assert bench.decide(affected=reads_null(control), fixed=ends(control)).says is Status.FIXED
    both = bench.decide(affected=reads_null(null), fixed=reads_null(null))
    assert both.says is Status.UNKNOWN
    assert both.doubts
    assert bench.decide(affected=reads_null(control), fixed=ends(control), control=ends(null)).says is Status.UNKNOWN


@every_compiler
def test_a_function_is_found_through_the_object_that_points_to_it(compiler: str) -> None:
    scene = _bench(compiler).scene()
    assert scene.target("driver", "ops", "remove").name == "drain"
    assert scene.pointed_to("driver", "ops", "owner") == 7
    assert scene.pointed_to("empty", "ops", "remove") == 0
    for table in ("empty", "nothing"):
        with pytest.raises(Missing):
            scene.target(table, "ops", "remove")


@every_compiler
def test_arrays_stand_in_a_row_and_private_parts_behind_their_object(compiler: str) -> None:
    scene = _bench(compiler).scene()
    first, second = scene.array("device", 2)
    second.id = 5
    table = scene.new("ops", remove=scene.callback("remove", 40))
    assert scene.run("through", table, first).value == 45
    outer, private = scene.with_private("ops", "device")
    assert int(private) - int(outer) == 32


def test_a_run_that_broke_off_is_a_doubt_beside_a_safe_word_and_none_beside_a_bad_one() -> None:
    bench = _bench("x86_64-gcc", Bounds(instructions=500))
    stuck = bench.scene(stubs={"status": 0xFF})
    outcome = stuck.run("poll", stuck.new("device"))
    safe = bench.decide(affected=reads_null(outcome), fixed=calls(outcome, "note"))
    assert (safe.says, {doubt.kind for doubt in safe.doubts}) == (
        Status.UNKNOWN, {DoubtKind.BOUND, DoubtKind.UNPARSED},
    )  # fmt: skip
    bad = bench.decide(affected=spins(outcome), fixed=ends(outcome))
    assert (bad.says, bad.doubts) == (Status.AFFECTED, ())


def test_a_bound_that_was_reached_is_a_doubt_beside_a_safe_word() -> None:
    bench = _bench("x86_64-gcc", Bounds(loads=0))
    scene = bench.scene()
    outcome = scene.run("null", scene.new("device", table=scene.pointers(1, 2)))
    decided = bench.decide(affected=reads_null(outcome), fixed=ends(outcome))
    assert decided.says is Status.UNKNOWN
    assert [doubt.kind for doubt in decided.doubts] == [DoubtKind.BOUND]


def test_what_is_not_there_is_missing() -> None:
    bench = _bench("x86_64-gcc")
    with pytest.raises(Missing, match="no struct nothing"):
        bench.scene().new("nothing")
    with pytest.raises(Missing, match="no function nothing"):
        bench.scene().run("nothing")
    assert not bench.has("nothing")
