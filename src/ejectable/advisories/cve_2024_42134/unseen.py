# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run did not show. A legacy device lived through one run: would it through every other?

Two ways to find out. The driver's indirect calls are counted: one that no run went through, and that leads to none of
the functions that the legacy probe set, may be the question. And what was read is changed, piece by piece, to see
what it decides.
"""

from collections.abc import Collection, Iterator

import msgspec

from ejectable.advisories.cve_2024_42134.stage import Stage
from ejectable.kernel.code import IndirectCall, indirect_calls, listing
from ejectable.kernel.machine import Load
from ejectable.kernel.program import Symbol

__all__ = ["LOW", "Condition", "calls", "conditions", "depends", "untried"]

MOST_FUNCTIONS = 64
MOST_CONDITIONS = 96
OWN = ("vp_", "virtio_pci_")
HIGH, LOW = 0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF


class Condition(msgspec.Struct, frozen=True):
    """Something that was read and may decide: `size` bytes at `address`, and what to put there instead."""

    address: int
    size: int
    value: int
    slot: int | None  # the offset in the device; `None`: it is elsewhere
    name: str


def calls(stage: Stage, function: Symbol) -> Iterator[IndirectCall]:
    """The indirect calls of the function under test and of all that works for it in the driver."""
    for name in _reached(stage, function):
        yield from indirect_calls(stage.program, name)


def untried(stage: Stage, function: Symbol, traced: Collection[int]) -> list[IndirectCall]:
    """Those that no run went through, and that do not lead to what the legacy probe had set."""
    known = stage.legacy_callbacks
    return [call for call in calls(stage, function) if call.site not in traced and call.loaded_from not in known]


def _reached(stage: Stage, function: Symbol) -> list[str]:
    """The function, what was followed in any run, and what of the driver they call directly, by name."""
    symbols = stage.program.symbols
    module = stage.program.name != "vmlinux"
    found = [function.name, *stage.met]
    for name in found:
        for instruction in listing(stage.program, name) if len(found) < MOST_FUNCTIONS else ():
            at = symbols.at(instruction.target) if instruction.target is not None else None
            if at is None or at[1] or at[0].kind not in "tTwW" or at[0].name in found:
                continue
            # All of a module is the driver; in a kernel only the names tell.
            if module or at[0].name.startswith(OWN):
                found.append(at[0].name)
    return found


def conditions(stage: Stage, loads: Collection[Load]) -> Iterator[Condition]:
    """What a run read, each time with another value. Pointers that the legacy probe set, and lists, are left alone."""
    seen: dict[tuple[int, int], int] = {}
    for load in loads:
        slot = stage.slot(load)
        if slot is None and not (stage.is_data(load.address) or stage.decides(load.address)):
            continue
        if slot is not None and (slot & ~7 in stage.legacy_callbacks or stage.is_list(slot)):
            continue
        seen.setdefault((load.address, load.size), load.value)
    for (address, size), value in list(seen.items())[:MOST_CONDITIONS]:
        offset = address - stage.device
        slot = offset if stage.owns(address) else None
        name = stage.name(offset) if slot is not None else stage.place(address)
        if size == 8 and value == 0:
            # Of the features, a legacy device may have the lower half only.
            yield Condition(address, size, HIGH, slot, name)
            yield Condition(address, size, LOW, slot, name)
        else:
            yield Condition(address, size, 0 if value else (1 << 8 * size) - 1, slot, name)


def depends(stage: Stage, slot: int) -> str | None:
    """What decides whether the legacy probe puts anything into this place of the device; `None` if nothing does.

    Every value that the probe read of the PCI device and of the kernel's variables, and every answer that it got, is
    changed; wherever it still succeeds, the place must hold something.
    """
    outcome, _ = stage.probe_again({}, {})
    changes: list[tuple[str, dict[int, tuple[int, int]], dict[str, int]]] = []
    seen = set()
    for load in outcome.loads:
        within = stage.parent <= load.address < stage.parent + stage.parent_size
        if (load.address, load.size) in seen or not (within or stage.is_data(load.address)):
            continue
        seen.add((load.address, load.size))
        flipped = 0 if load.value else (1 << 8 * load.size) - 1
        changes.append((stage.place(load.address), {load.address: (flipped, load.size)}, {}))
    for name in dict.fromkeys(call.name for call in outcome.calls):
        answers = {call.answer for call in outcome.calls if call.name == name}
        if answers <= {0, 1}:
            changes.append((f"what {name}() answers", {}, {name: 0 if answers == {1} else 1}))
    for name, pokes, other in changes[: 2 * MOST_CONDITIONS]:
        again, device = stage.probe_again(pokes, other)
        driven = again.exit == "returned" and not (again.value or 0) & 0xFFFF_FFFF
        # Without the functions that every legacy device gets it was no legacy probe.
        legacy = driven and all(any(device[at : at + 8]) for at in stage.legacy_callbacks if at != slot)
        if legacy and not any(device[slot : slot + 8]):
            return name
    return None
