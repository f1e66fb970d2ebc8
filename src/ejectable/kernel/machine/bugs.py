# SPDX-License-Identifier: GPL-2.0-or-later
"""Which traps of a kernel are warnings: WARN() and BUG() are the same instruction, and a table tells them apart.

struct bug_entry, include/asm-generic/bug.h, with relative pointers: the distance to the trap, that to the file's name
(CONFIG_DEBUG_BUGVERBOSE), that to the format (v6.19), the line, and flags, of which the lowest says "warning". Which of
these a kernel has is told by the traps: in the right layout each entry points to one.
"""

import struct

from ejectable.kernel.machine.cpu import CPU
from ejectable.kernel.program import NotMapped, Program

__all__ = ["warnings_of"]

START, STOP, SECTION = "__start___bug_table", "__stop___bug_table", "__bug_table"
# Size of an entry → where its flags are, in bytes.
LAYOUTS = {12: 10, 8: 4, 16: 14}
WARNING = 1
MOST = 8 << 20  # bytes; a distribution's kernel has some 300 KiB
SAMPLE = 64


def warnings_of(program: Program, cpu: CPU) -> frozenset[int]:
    """Addresses of the trap instructions that only warn; empty where the table is not there or not understood."""
    table = _table(program)
    if table is None:
        return frozenset()
    address, data = table
    for size, flags_at in LAYOUTS.items():
        if len(data) >= size and len(data) % size == 0:
            places = [
                (address + at + struct.unpack_from("<i", data, at)[0], struct.unpack_from("<H", data, at + flags_at)[0])
                for at in range(0, len(data), size)
            ]
            step = max(1, len(places) // SAMPLE)
            if all(_is_trap(program, cpu, place) for place, _ in places[::step]):
                return frozenset(place for place, flags in places if flags & WARNING)
    return frozenset()


def _table(program: Program) -> tuple[int, bytes] | None:
    start, stop = program.symbols.get(START), program.symbols.get(STOP)
    try:
        if start is not None and stop is not None and 0 < stop.address - start.address <= MOST:
            return start.address, program.image.read(start.address, stop.address - start.address)
    except NotMapped:
        return None
    segment = next((each for each in program.image.segments if each.name == SECTION), None)
    return (segment.address, bytes(segment.data[:MOST])) if segment is not None else None


def _is_trap(program: Program, cpu: CPU, address: int) -> bool:
    try:
        return bool(cpu.trap_size(program.image.read(address, 4)))
    except NotMapped:
        return False
