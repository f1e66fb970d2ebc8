# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run did not show. A legacy device lived through one run: would it through every other?

Two ways to find out. The driver's indirect calls are counted: one that no run went through, and that leads to none of
the functions that the legacy probe set, may be the question. And what was read is changed, piece by piece, to see
what it decides: to nothing, to everything, and to each number that the code compares something with.
"""

import re
from collections.abc import Collection, Iterator

import msgspec

from ejectable.advisories.cve_2024_42134.scene import Scene
from ejectable.kernel.code import IndirectCall, indirect_calls, listing, unread
from ejectable.kernel.machine import Load
from ejectable.kernel.program import Symbol

__all__ = ["LOW", "Condition", "calls", "conditions", "depends", "untried"]

OWN = ("vp_", "virtio_pci_")
HIGH, LOW = 0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF
# What compares, or puts a number where something is compared with it next.
COMPARES = re.compile(r"cmp|cmn|sub|subs|test|tst|and|ands|xor|eor|mov|movz|ccmp")
NUMBER = re.compile(r"#?(-?0x[0-9a-f]{1,16}|-?\d{1,20})$")


class Condition(msgspec.Struct, frozen=True):
    """Something that was read and may decide: `size` bytes at `address`, and what to put there instead."""

    address: int
    size: int
    value: int
    slot: int | None  # the offset in the device; `None`: it is elsewhere
    name: str


def calls(scene: Scene, function: Symbol) -> Iterator[IndirectCall]:
    """The indirect calls of the function under test and of all that works for it in the driver."""
    for each in _reached(scene, [function, *scene.met.values()]):
        yield from indirect_calls(scene.program, each)


def untried(scene: Scene, function: Symbol, traced: Collection[int]) -> list[IndirectCall]:
    """Those that no run went through, and that do not lead to what the legacy probe had set."""
    known = scene.legacy_callbacks
    return [call for call in calls(scene, function) if call.site not in traced and call.loaded_from not in known]


def _reached(scene: Scene, start: Collection[Symbol]) -> list[Symbol]:
    """These functions and what of the driver they call directly, and so on."""
    symbols = scene.program.symbols
    module, own = scene.program.name != "vmlinux", scene.program.own
    found = list({symbol.address: symbol for symbol in start}.values())
    known = {symbol.address for symbol in found}
    for number, function in enumerate(found):
        if number >= scene.bounds.functions:
            scene.reached.setdefault(f"of the driver's functions only {scene.bounds.functions} were read")
            return found[:number]
        for part in unread(scene.program, function):
            scene.reached.setdefault(f"the code of {part.name}() could not be read to its end")
        for instruction in listing(scene.program, function):
            at = symbols.at(instruction.target) if instruction.target is not None else None
            if at is None or at[1] or at[0].kind not in "tTwW" or at[0].address in known:
                continue
            # All of a module is the driver; in a kernel only the names tell. A module in memory stands among others.
            if (module and (own is None or own[0] <= at[0].address <= own[1])) or at[0].name.startswith(OWN):
                found.append(at[0])
                known.add(at[0].address)
    return found


def _numbers(scene: Scene, start: Collection[Symbol]) -> list[int]:
    """The numbers that these functions, and what they call of the driver, compare something with."""
    found: dict[int, None] = {}
    for function in _reached(scene, start):
        for instruction in listing(scene.program, function):
            last = instruction.operands.rpartition(",")[2].strip()
            if COMPARES.fullmatch(instruction.mnemonic) and NUMBER.fullmatch(last):
                found[int(last.removeprefix("#"), 0) & LOW] = None
    numbers = [number for number in found if number]
    if len(numbers) > scene.bounds.numbers:
        scene.reached.setdefault(f"of {len(numbers)} numbers that the code compares only some were tried")
    return numbers[: scene.bounds.numbers]


def conditions(scene: Scene, function: Symbol, loads: Collection[Load]) -> Iterator[Condition]:
    """What a run read, each time with another value. Pointers that the legacy probe set, and lists, are left alone."""
    seen: dict[tuple[int, int], int] = {}
    for load in loads:
        slot = scene.slot(load)
        if slot is None and not (scene.is_data(load.address) or scene.decides(load.address)):
            continue
        if slot is not None and (slot & ~7 in scene.legacy_callbacks or scene.is_list(slot)):
            continue
        seen.setdefault((load.address, load.size), load.value)
    numbers = _numbers(scene, [function, *scene.met.values()])
    count, most = 0, scene.bounds.conditions
    if len(seen) > most:
        scene.reached.setdefault(f"of {len(seen)} values that were read only {most} were changed")
    for (address, size), value in list(seen.items())[:most]:
        slot = address - scene.device if scene.owns(address) else None
        name = scene.place(address)
        for other in _others(scene, size, value, numbers):
            count += 1
            if count > scene.bounds.runs:
                scene.reached.setdefault(f"no more than {scene.bounds.runs} runs were made")
                return
            yield Condition(address, size, other, slot, name)


def _others(scene: Scene, size: int, value: int, numbers: Collection[int]) -> Iterator[int]:
    """The values to try instead of one."""
    if size == 8 and scene.owns(value):
        yield scene.modern + value - scene.device  # a pointer to a device that a modern driver drives
    if size == 8 and value == 0:
        # Of the features, a legacy device may have the lower half only.
        yield from (HIGH, LOW)
    else:
        yield 0 if value else (1 << 8 * size) - 1
    if size < 8:
        yield from (number for number in numbers if number >> 8 * size == 0 and number != value)


def depends(scene: Scene, slot: int) -> str | None:
    """What decides whether the legacy probe puts anything into this place of the device; `None` if nothing does.

    Every value that the probe read of the PCI device and of the kernel's variables, and every answer that it got, is
    changed; wherever it still succeeds, the place must hold something.
    """
    outcome, _ = scene.probe_again({}, {})
    probes = [scene.program.symbols.function(name) for name in ("virtio_pci_probe", "virtio_pci_legacy_probe")]
    numbers = _numbers(scene, [probe for probe in probes if probe is not None])
    changes: list[tuple[str, dict[int, tuple[int, int]], dict[str, int]]] = []
    seen = set()
    for load in outcome.loads:
        within = scene.parent <= load.address < scene.parent + scene.parent_size
        if (load.address, load.size) in seen or not (within or scene.is_data(load.address)):
            continue
        seen.add((load.address, load.size))
        name = scene.place(load.address)
        changes += [(name, {load.address: (value, load.size)}, {})
                    for value in _others(scene, load.size, load.value, numbers)]  # fmt: skip
    for name in dict.fromkeys(call.name for call in outcome.calls):
        answers = {call.answer for call in outcome.calls if call.name == name}
        if answers <= {0, 1}:
            changes.append((f"what {name}() answers", {}, {name: 0 if answers == {1} else 1}))
    if len(changes) > scene.bounds.runs:
        scene.reached.setdefault(f"of {len(changes)} things that the probe may depend on not all were changed")
    for name, pokes, other in changes[: scene.bounds.runs]:
        again, device = scene.probe_again(pokes, other)
        driven = again.exit == "returned" and not (again.value or 0) & LOW
        # Without the functions that every legacy device gets it was no legacy probe.
        legacy = driven and all(any(device[at : at + 8]) for at in scene.legacy_callbacks if at != slot)
        if legacy and not any(device[slot : slot + 8]):
            return name
    return None
