# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes that are set in a running kernel's code, read from its memory (kernel/kprobes.c).

A probe replaces the first instruction in its place, and a debugger's view of the code has to see through it. Where
several stand at one place, the kernel's table holds a probe of its own that lists them.
"""

from collections.abc import Callable, Iterator

import msgspec

from ejectable.errors import Missing
from ejectable.kernel.program import Program, Types

__all__ = ["Kprobe", "read_kprobes"]

GONE, DISABLED, FTRACE = 1, 2, 8  # include/linux/kprobes.h, KPROBE_FLAG_*
TABLE, HEADS = "kprobe_table", 64  # KPROBE_TABLE_SIZE
MOST_PROBES = 4096
INT3, JUMP, CALL = 0xCC, 0xE9, 0xE8  # arch/x86/include/asm/text-patching.h
BRK = 0xD4200080  # arch/arm64/include/asm/brk-imm.h: KPROBES_BRK_IMM is 4
Read = Callable[[int, int], bytes]


class Kprobe(msgspec.Struct, frozen=True):
    """One place that is probed."""

    address: int  # of the struct kprobe in the table
    place: int  # in the code
    probes: tuple[int, ...]  # the struct kprobe of each probe that is called there and neither disabled nor gone
    planted: bool  # the code at the place leads to them now
    original: bytes  # what stood there, where the probe's own instruction hides it


def read_kprobes(vmlinux: Program, read: Read) -> tuple[Kprobe, ...]:
    """Every place that is probed. Raises `Missing` where symbols or types do not tell, `DamagedInput` for no memory."""
    table, types = vmlinux.symbols.get(TABLE), vmlinux.types
    if table is None or types is None:
        raise Missing("The kernel's table of probes was not found in memory (CONFIG_KPROBES, CONFIG_KALLSYMS_ALL).")
    return tuple(_Reader(vmlinux, types, read).probes(table.address))


class _Reader:
    def __init__(self, vmlinux: Program, types: Types, read: Read) -> None:
        self._vmlinux, self._types, self._read = vmlinux, types, read
        self._hlist, self._list = self._offset("kprobe", "hlist"), self._offset("kprobe", "list")
        self._addr, self._flags = self._offset("kprobe", "addr"), self._offset("kprobe", "flags")
        self._opcode = self._offset("kprobe", "opcode")

    def _offset(self, struct: str, path: str) -> int:
        member = self._types.member(struct, path)
        if member is None:
            raise Missing(f"The kernel's types have no {struct}.{path}.")
        return member.offset

    def _word(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self._read(address, size), "little")

    def probes(self, table: int) -> Iterator[Kprobe]:
        seen = 0
        for head in range(table, table + 8 * HEADS, 8):
            node = self._word(head)
            while node:
                seen += 1
                if seen > MOST_PROBES:
                    raise Missing("A list of probes in the kernel's memory does not end.")
                yield self._probe(node - self._hlist)
                node = self._word(node)

    def _probe(self, address: int) -> Kprobe:
        place, flags = self._word(address + self._addr), self._word(address + self._flags, 4)
        own = [address, *self._listed(address + self._list)]
        alive = tuple(one for one in own if not self._word(one + self._flags, 4) & (GONE | DISABLED))
        planted, original = self._code(address, place, flags)
        return Kprobe(address, place, alive, planted and address in alive, original)

    def _listed(self, head: int) -> Iterator[int]:
        node = self._word(head)
        for _ in range(MOST_PROBES):
            if node in (head, 0):  # a probe that stands alone may never have set its list up
                return
            yield node - self._list
            node = self._word(node)
        raise Missing("A list of probes in the kernel's memory does not end.")

    def _code(self, address: int, place: int, flags: int) -> tuple[bool, bytes]:
        """Whether the code at the place leads to the probes, and what was there before."""
        if flags & GONE:
            return False, b""
        if self._on("kprobes_all_disarmed", 1):
            return False, b""
        if self._vmlinux.arch == "aarch64":
            planted = self._word(place, 4) == BRK
            return planted, self._read(address + self._opcode, 4) if planted else b""
        first = self._word(place, 1)
        if flags & FTRACE:
            # The call of a tracer, which others may have set too: then this tells whether ours is among them.
            return first == CALL and self._on("ftrace_enabled", 4, default=True), b""
        if first == INT3:
            return True, self._read(address + self._opcode, 1)
        if first == JUMP:  # a probe that was optimised: a jump over five bytes
            copied = self._read(address + self._offset("optimized_kprobe", "optinsn.copied_insn"), 4)
            return True, self._read(address + self._opcode, 1) + copied
        return False, b""

    def _on(self, variable: str, size: int, *, default: bool = False) -> bool:
        symbol = self._vmlinux.symbols.get(variable)
        return bool(self._word(symbol.address, size)) if symbol else default
