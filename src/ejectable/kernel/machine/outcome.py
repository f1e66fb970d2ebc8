# SPDX-License-Identifier: GPL-2.0-or-later
"""How a run ended and what it did on the way: frozen values, addresses already given their names."""

from typing import Literal

import msgspec

__all__ = ["Call", "Fault", "Load", "Outcome", "Trap"]


class Load(msgspec.Struct, frozen=True):
    """Something read outside of the stack: `size` bytes at `address`, by the instruction at `site`."""

    address: int
    size: int
    value: int
    site: int


class Call(msgspec.Struct, frozen=True):
    """A call that left the functions that were run, and how it was answered."""

    name: str  # of the callee: a symbol, the name of a callback, or a bare address
    address: int
    at: str  # the call instruction, "virtblk_remove+0x71"
    site: int  # its address
    arguments: tuple[int, ...]  # the first four argument registers
    answer: int


class Fault(msgspec.Struct, frozen=True):
    """An access that the memory of the experiment did not hold.

    `at` is what an Oops would print first: for a fetch the return address in the caller, otherwise the
    instruction itself. `loads` are the pointers read shortly before that may have led there, newest first.
    """

    access: Literal["fetch", "read", "write"]
    address: int
    at: str
    site: int  # the instruction that called, read or wrote
    arguments: tuple[int, ...]
    loads: tuple[Load, ...]


class Trap(msgspec.Struct, frozen=True):
    """An instruction that is there to stop the kernel: ud2, int3, brk, or a call that reports corruption."""

    kind: Literal["bug", "cfi", "stack-protector", "warning"]
    at: str
    site: int


class Outcome(msgspec.Struct, frozen=True):
    """What one call of a kernel function came to."""

    function: str
    exit: Literal["returned", "fault", "trap", "budget", "left-image"]
    value: int | None  # of the return register, where it returned
    fault: Fault | None
    trap: Trap | None
    calls: tuple[Call, ...]
    chain: tuple[str, ...]  # call sites still open when it ended, innermost first
    why: str  # for `left-image`: what it ran into
    instructions: int
    trace: tuple[int, ...]  # addresses of the instructions run, the last ones where there were very many
    loads: tuple[Load, ...] = ()  # every read outside of the stack, in order, bounded likewise
    bounds: tuple[str, ...] = ()  # names of `Bounds` that were reached: there is more than is told here

    warnings: tuple[Trap, ...] = ()  # WARN(), and reports of corrupt lists and counts: the kernel went on

    def called(self, name: str) -> tuple[Call, ...]:
        """The recorded calls of this callee."""
        return tuple(call for call in self.calls if call.name == name)

    def story(self) -> str:
        """One sentence: `virtblk_remove+0x6e fetched address 0, called with 0x... in the first argument`."""
        if self.fault:
            first = f", called with {self.fault.arguments[0]:#x} in the first argument"
            verb = {"fetch": "fetched", "read": "read", "write": "wrote"}[self.fault.access]
            tail = first if self.fault.access == "fetch" else ""
            return f"{self.fault.at} {verb} address {self.fault.address:#x}{tail}"
        if self.trap:
            return f"{self.trap.at} trapped ({self.trap.kind})"
        if self.exit == "returned":
            return f"{self.function} returned after {self.instructions} instructions"
        if self.exit == "budget":
            return f"{self.function} did not return within {self.instructions} instructions"
        return f"{self.function} could not be followed: it {self.why or 'stopped'}"
