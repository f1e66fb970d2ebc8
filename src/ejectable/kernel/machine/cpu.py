# SPDX-License-Identifier: GPL-2.0-or-later
"""The two instruction sets as the machine sees them: registers of the calling convention, traps, thunks.

Calling conventions: System V psABI for x86-64, section 3.2.3; AAPCS64, section 6.4. The kernel keeps to them.
"""

import errno
import mmap
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from ejectable.errors import Missing
from ejectable.kernel.program import SymbolTable
from ejectable.model import Arch

__all__ = ["CPU", "SILENT", "cpu_of", "return_thunks", "thunk_registers"]

# Calls that only watch: tracing, coverage, sanitizers. They are answered and not recorded, and change no register
# that matters.
SILENT = re.compile(
    r"__fentry__|_?mcount|ftrace_\w+|__sanitizer_cov_\w+|__cyg_profile_\w+|__(?:asan|hwasan|tsan|msan|kcsan|kasan)_\w+"
    r"|__check_object_size|__might_\w+|__cond_resched|__SCT__\w+|lockdep_\w+|lock_(?:acquire|release)|__preempt_count_\w+"
)

# What a jump to one of these does: it goes where the register points. arch/x86/lib/retpoline.S; the "call" and "jump"
# forms are call depth tracking's (v6.2), the "its" form is of 2025 (CVE-2024-28956).
THUNK_FORMS = ("__x86_indirect_thunk_{}", "__x86_indirect_call_thunk_{}", "__x86_indirect_jump_thunk_{}",
               "__x86_indirect_its_thunk_{}")  # fmt: skip
THUNK_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))
# What a jump to one of these does: it returns.
RETURN_THUNKS = ("__x86_return_thunk", "zen_return_thunk", "retbleed_return_thunk", "srso_return_thunk",
                 "srso_alias_return_thunk", "call_depth_return_thunk", "its_return_thunk")  # fmt: skip

# Registers in the order of their numbers in x86-64 instructions.
ENCODED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
TRANSLATED = 16 << 20  # bytes for translated code: a run of one function takes some hundred KiB
MORE = 4 << 20  # what else Unicorn takes when it is opened


class CPU(msgspec.Struct, frozen=True):
    """Unicorn's numbers for one instruction set."""

    arch: Arch
    pc: int
    sp: int
    link: int | None  # the register of the return address; `None` where it is on the stack
    result: int
    results: tuple[int, int]  # of a pair of pointers
    arguments: tuple[int, ...]
    general: Mapping[str, int]

    def open(self) -> Any:
        """A fresh Unicorn engine; raises `Missing` where this process may not have memory to translate code into."""
        from unicorn import arm64_const, unicorn_const
        from unicorn.unicorn_py3 import unicorn

        _may_translate()
        opened: Any = unicorn.Uc  # it has no annotations
        if self.arch == "x86_64":
            engine = opened(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        else:
            engine = opened(unicorn_const.UC_ARCH_ARM64, unicorn_const.UC_MODE_ARM)
            # Kernels use LSE atomics and pointer authentication where the compiler may.
            engine.ctl_set_cpu_model(arm64_const.UC_CPU_ARM64_MAX)
        # It would reserve 1 GiB of address space, and end the process where that is not to be had.
        engine.ctl_set_tcg_buffer_size(TRANSLATED)
        # Without it Unicorn >= 2.1 truncates addresses to 52 bits.
        engine.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
        return engine

    def trap_size(self, code: bytes) -> int:
        """The size in bytes of the instruction that `code` begins with, if it stops the kernel on purpose, else 0."""
        if self.arch == "aarch64":
            return 4 if int.from_bytes(code[:4], "little") & 0xFFE0_001F == 0xD420_0000 else 0  # BRK #imm
        if code[:1] == b"\xcc":  # int3
            return 1
        prefix = code[:1] == b"\x67"
        opcode = code[prefix : prefix + 2]
        if opcode == b"\x0f\x0b":  # ud2
            return 2 + prefix
        if opcode == b"\x0f\xb9":  # ud1, with a register or a byte of displacement (UBSan; kCFI since v6.16)
            return 3 + prefix + (code[prefix + 2] >> 6 == 1)
        return 0

    def cfi_register(self, before: bytes, code: bytes) -> str | None:
        """The register whose target a trap of kCFI has found to have the wrong hash; `None` for every other trap.

        `before` ends where the trap, `code`, begins. Clang's KCFI_CHECK: on x86-64
        `mov r10d, -HASH; add r10d, [TARGET - 4]; je over the trap; ud2`, on arm64 the BRK's number says what it is
        (CFI_BRK_IMM_BASE, arch/arm64/include/asm/brk-imm.h).
        """
        if self.arch == "aarch64":
            number = int.from_bytes(code[:4], "little") >> 5 & 0xFFFF
            return f"x{number & 31}" if self.trap_size(code) and number & 0xFC00 == 0x8000 else None
        size = self.trap_size(code)
        near, far = bytes((0x74, size)), b"\x0f\x84" + size.to_bytes(4, "little")  # je over the trap
        if not before.endswith((near, far)):
            return None
        before = before[: -len(near if before.endswith(near) else far)]
        # add r10d or r11d, [register + 8 or 32 bits]: Intel's manual, volume 2, 2.1.5. rsp and r12 take one byte more.
        for mode, displacement in ((0x40, 1), (0x80, 4)):
            for more in (b"", b"\x24"):
                place = len(before) - displacement - len(more) - 3
                prefix, opcode, operands = before[place : place + 3] if place >= 0 else b"\0\0\0"
                base = operands & 7
                is_add = prefix & 0xFE == 0x44 and opcode == 3 and operands & 0xF0 == mode | 0x10
                if is_add and (base == 4) is bool(more) and before[place + 3 : place + 3 + len(more)] == more:
                    return ENCODED[base + 8 * (prefix & 1)]
        return None


def _may_translate() -> None:
    """Ask for what Unicorn will: it would end the process where it gets no memory to translate code into."""
    try:
        mmap.mmap(-1, TRANSLATED + MORE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError from error
        raise Missing(
            "This process may have no memory that is writable and executable (under systemd: MemoryDenyWriteExecute).",
            hint="Judge the kernel's file, or a capture of this machine, where that is allowed.",
        ) from error


@cache
def cpu_of(arch: Arch) -> CPU:
    """The description of one instruction set; imports Unicorn's constants."""
    if arch == "x86_64":
        from unicorn import x86_const as x86

        general = {name: int(getattr(x86, f"UC_X86_REG_{name.upper()}")) for name in THUNK_REGISTERS}
        order = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
        return CPU(arch, x86.UC_X86_REG_RIP, x86.UC_X86_REG_RSP, None, x86.UC_X86_REG_RAX,
                   (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDX),
                   tuple(general[name] for name in order), general)  # fmt: skip
    from unicorn import arm64_const as arm

    general = {f"x{n}": int(getattr(arm, f"UC_ARM64_REG_X{n}")) for n in range(31)}
    return CPU(arch, arm.UC_ARM64_REG_PC, arm.UC_ARM64_REG_SP, arm.UC_ARM64_REG_X30, arm.UC_ARM64_REG_X0,
               (arm.UC_ARM64_REG_X0, arm.UC_ARM64_REG_X1),
               tuple(general[f"x{n}"] for n in range(8)), general)  # fmt: skip


def thunk_registers(symbols: SymbolTable) -> dict[int, str]:
    """Address of each retpoline thunk → the register that it jumps to."""
    found = {}
    for register in THUNK_REGISTERS:
        for form in THUNK_FORMS:
            symbol = symbols.get(form.format(register))
            if symbol is not None:
                found[symbol.address] = register
    return found


def return_thunks(symbols: SymbolTable) -> frozenset[int]:
    """Addresses of the return thunks."""
    return frozenset(symbol.address for name in RETURN_THUNKS if (symbol := symbols.get(name)) is not None)
