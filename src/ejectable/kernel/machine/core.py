# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine: one function of a kernel binary, run against objects of our making.

    machine = Machine(program)
    device = machine.new("virtio_pci_device")
    outcome = machine.call("virtblk_remove", device.vdev)
    outcome.fault

Each instruction is watched. As long as it belongs to the function that was called, or to one that `step_into`
lets in, it runs; a call of anything else is recorded, answered, and never entered. The machine knows what all
kernels have in common (thunks, tracing, stack protector, per-CPU base, kCFI) and no subsystem.
"""

import struct
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from ejectable.errors import Missing
from ejectable.kernel.machine.bounds import Bounds
from ejectable.kernel.machine.bugs import warnings_of
from ejectable.kernel.machine.cpu import SILENT, cpu_of, return_thunks, thunk_registers
from ejectable.kernel.machine.memory import (
    DOOR,
    PAGE,
    PERCPU,
    SHADOW,
    SHADOW_STACK,
    STACK,
    STACK_SIZE,
    TASK,
    Memory,
    on_stack,
)
from ejectable.kernel.machine.objects import Object
from ejectable.kernel.machine.outcome import Call, Fault, Load, Outcome, Trap
from ejectable.kernel.machine.run import Frame, Run
from ejectable.kernel.machine.sanitizers import returns_shadow
from ejectable.kernel.machine.stubs import REPORTS, Stub, general_stub
from ejectable.kernel.program import SUFFIX, NotMapped, Program, Symbol, Types

__all__ = ["Machine", "StepInto"]

DEFAULT = Bounds()
CFI_CHECK = 16  # bytes in front of the trap that kCFI's check takes
EXIT = DOOR
NOWHERE = DOOR + PAGE - 8
FIRST_CALLBACK, CALLBACK_SIZE = 0x40, 0x20
MASK = (1 << 64) - 1
UNDEFINED = "undefined"  # kernel/module.py's segment of what a module takes from elsewhere


class StepInto(Protocol):
    """Decides whether a call is followed: the callee and its first argument registers."""

    def __call__(self, callee: Symbol, arguments: tuple[int, ...]) -> bool:
        """Whether to run it."""


class Machine:
    """A sandbox for one program. `types` stands in for the program's own; objects live as long as the machine.

    `stubs` maps a callee's name to its answer: a number, or a function of the machine and the arguments.
    """

    def __init__(
        self,
        program: Program,
        *,
        types: Types | None = None,
        step_into: StepInto | None = None,
        stubs: Mapping[str, Stub] | None = None,
        bounds: Bounds = DEFAULT,
    ) -> None:
        from unicorn import unicorn_const as uc

        self.program = program
        self._types = types if types is not None else program.types
        self.step_into = step_into
        self.stubs: dict[str, Stub] = dict(stubs or {})
        self.bounds = bounds
        self._cpu = cpu_of(program.arch)
        self._engine = self._cpu.open()
        self._run = Run("", bounds)
        self.memory = Memory(self._engine, program.image, bounds, self.reached)
        self._thunks = thunk_registers(program.symbols) if program.arch == "x86_64" else {}
        self._returns = return_thunks(program.symbols) if program.arch == "x86_64" else frozenset()
        self._callbacks: dict[int, tuple[str, Stub]] = {}
        self._prepare()
        self._engine.hook_add(uc.UC_HOOK_CODE, self._step)
        self._engine.hook_add(uc.UC_HOOK_MEM_READ, self._loaded)
        unmapped = uc.UC_HOOK_MEM_READ_UNMAPPED | uc.UC_HOOK_MEM_WRITE_UNMAPPED | uc.UC_HOOK_MEM_FETCH_UNMAPPED
        self._engine.hook_add(unmapped, self._absent)
        self._kinds = {
            uc.UC_MEM_READ_UNMAPPED: "read",
            uc.UC_MEM_WRITE_UNMAPPED: "write",
            uc.UC_MEM_FETCH_UNMAPPED: "fetch",
        }

    def _prepare(self) -> None:
        """Registers that the kernel keeps: the per-CPU base and `current`."""
        if self.program.arch == "x86_64":
            from unicorn import x86_const

            self._engine.reg_write(x86_const.UC_X86_REG_GS_BASE, PERCPU)
            # `current` before v6.2, then the first member of pcpu_hot (until v6.15).
            for name in ("current_task", "pcpu_hot"):
                symbol = self.program.symbols.get(name)
                place = PERCPU + symbol.address & MASK if symbol and symbol.kind != "U" else 0
                if place and self.memory.holds(place) and not place % 8:
                    self.memory.write(place, TASK.to_bytes(8, "little"))
        else:
            from unicorn import arm64_const

            self._engine.reg_write(arm64_const.UC_ARM64_REG_TPIDR_EL1, PERCPU)
            self._engine.reg_write(arm64_const.UC_ARM64_REG_SP_EL0, TASK)

    # Objects

    @property
    def types(self) -> Types:
        """The types that objects are laid out by; raises `Missing` where there are none."""
        if self._types is None:
            raise Missing(f"{self.program.name} carries no types.", hint="Give the machine a layout of your own.")
        return self._types

    def new(self, struct: str, /, **members: "int | Object") -> Object:
        """A zeroed object of this type; raises `Missing` where the kernel has no such type."""
        found = self.types.struct(struct)
        if found is None:
            raise Missing(f"{self.program.name} has no struct {struct}.")
        return Object(self, struct, self.memory.allocate(found.size)).set(**members)

    def alloc(self, size: int = PAGE) -> int:
        """The address of `size` zero bytes that have no type."""
        return self.memory.allocate(size)

    @property
    def percpu(self) -> int:
        """The base of this processor's per-CPU area."""
        return PERCPU

    @property
    def where(self) -> str:
        """The call that a stub is answering just now: "free_netdev+0x1c"."""
        return self.program.symbols.describe(self._run.last)

    def callback(self, name: str, answer: Stub = 0) -> int:
        """The address of a function of ours, to put into a pointer; its calls are recorded under `name`."""
        address = DOOR + FIRST_CALLBACK + CALLBACK_SIZE * len(self._callbacks)
        if address >= NOWHERE:
            raise Missing("No more callbacks fit into this experiment.")
        self._callbacks[address] = (name, answer)
        return address

    def reached(self, bound: str) -> None:
        """Note that the present run came to a bound: it shows less than there is."""
        self._run.bounds.add(bound)

    # Running

    def call(self, function: str | int | Symbol, *arguments: "int | Object") -> Outcome:
        """Run one function until it returns, faults, traps or takes too long. Raises `Missing` if it is not there."""
        symbols = self.program.symbols
        symbol = symbols.function(function) if isinstance(function, str) else None
        if isinstance(function, Symbol):
            symbol = function
        elif symbol is None and isinstance(function, str):
            raise Missing(f"{self.program.name} has no function {function}.")
        start = symbol.address if symbol else int(function)  # type: ignore[arg-type]  # no string any more
        run = self._run = Run(symbol.name if symbol else symbols.describe(start), self.bounds)
        self._admit(symbol, start)
        cpu, engine = self._cpu, self._engine
        # Both calling conventions put what finds no register on the stack, in order, above the return address.
        rest = [value.__index__() & MASK for value in arguments[len(cpu.arguments) :]]
        sp = STACK + STACK_SIZE - 0x200 - (8 * len(rest) + 15 & ~15)
        self.memory.write(sp, struct.pack(f"<{len(rest)}Q", *rest))
        for register, value in zip(cpu.arguments, arguments, strict=False):
            engine.reg_write(register, value.__index__() & MASK)
        if cpu.link is None:
            sp -= 8
            self.memory.write(sp, EXIT.to_bytes(8, "little"))
        else:
            engine.reg_write(cpu.link, EXIT)
            # x18 points to where the next return address is put a second time; kernels without that keep nothing there.
            engine.reg_write(cpu.general["x18"], SHADOW_STACK)
        engine.reg_write(cpu.sp, sp)
        self._go(start)
        return self._outcome(run)

    def _admit(self, symbol: Symbol | None, address: int) -> None:
        """Let this function run, and the parts that the compiler split off it."""
        self._run.entered.add(address)
        if symbol is not None:
            name = SUFFIX.sub("", symbol.name)
            self._run.names.add(name)

    def _go(self, pc: int) -> None:
        from unicorn.unicorn_py3.unicorn import UcError

        run = self._run
        while True:
            run.resume = None
            try:
                self._engine.emu_start(pc, NOWHERE)
            except UcError as error:
                run.refused = str(error)
            if run.exit is None and run.resume is None:
                # Neither a hook of ours stopped it, nor did it come to an end: an instruction that Unicorn does not
                # know, or the clock.
                run.exit = "left-image" if run.refused else "budget"
                if not run.refused:
                    self.reached("instructions")
            following = run.following()
            if following is None:
                return
            pc = following

    def _stop(self, how: str) -> None:
        self._run.exit = how
        self._engine.emu_stop()

    def _resume(self, pc: int) -> None:
        self._run.resume = pc
        self._engine.emu_stop()

    # Hooks

    def _step(self, _engine: Any, address: int, size: int, _data: Any) -> None:
        run = self._run
        if run.resume is not None or run.exit is not None:
            return
        run.count += 1
        if run.count > self.bounds.instructions:
            self.reached("instructions")
            self._stop("budget")
            return
        # One that follows the last, inside of a function that runs, is nothing to think about.
        if address != run.next and self._arrive(address):
            return
        trap = run.traps.get(address)
        if trap is None:
            # The size that Unicorn gives for what it cannot run means nothing.
            code = self.memory.read(address, min(8, PAGE - address % PAGE))
            run.traps[address] = trap = self._cpu.trap_size(code)
        if trap:
            self._trapped(address, trap)
            return
        if len(run.trace) >= self.bounds.trace:
            self.reached("trace")
        run.trace.append(address)
        run.last, run.next = address, address + size

    def _arrive(self, address: int) -> bool:
        """Control came to `address` from elsewhere; whether the instruction there is not to be run."""
        run = self._run
        self._frames(address)
        inside = run.inside.get(address)
        if inside is None:
            inside = run.inside[address] = self._belongs(address)
        if inside:
            return False
        if DOOR <= address < DOOR + PAGE:
            self._at_door(address)
        elif address in self._returns:
            self._resume(self._pop())
        elif address in self._thunks:
            target = self._engine.reg_read(self._cpu.general[self._thunks[address]])
            self._resume(target)
        else:
            return self._leave(address)
        return True

    def _belongs(self, address: int) -> bool:
        found = self.program.symbols.at(address)
        if found is None:
            return False
        symbol, offset = found
        if symbol.address in self._run.entered:
            return True
        # name.cold and name.part.0 are the same function.
        if SUFFIX.sub("", symbol.name) in self._run.names and symbol.kind != "U":
            is_part = symbol.name != SUFFIX.sub("", symbol.name)
            return is_part or offset > 0
        return False

    def _frames(self, address: int) -> None:
        run = self._run
        if any(frame.back == address for frame in run.frames):
            sp = self._engine.reg_read(self._cpu.sp)
            while run.frames and (run.frames[-1].sp < sp or run.frames[-1].back == address):
                run.frames.pop()
            return
        self._note_call()

    def _note_call(self) -> None:
        """Open a frame if the last instruction was a call."""
        run = self._run
        if not run.next:
            return
        back = self._back()
        if back == run.next:
            frame = Frame(run.last, back, self._engine.reg_read(self._cpu.sp))
            if not run.frames or run.frames[-1] != frame:  # a thunk's jump arrives twice
                run.frames.append(frame)

    def _back(self) -> int:
        """Where the callee would return to."""
        cpu = self._cpu
        if cpu.link is not None:
            return int(self._engine.reg_read(cpu.link))
        sp = self._engine.reg_read(cpu.sp)
        return self.memory.word(sp) if self.memory.holds(sp) and self.memory.holds(sp + 7) else 0

    def _pop(self) -> int:
        back = self._back()
        if self._cpu.link is None:
            self._engine.reg_write(self._cpu.sp, self._engine.reg_read(self._cpu.sp) + 8)
        if self._run.frames and self._run.frames[-1].back == back:
            self._run.frames.pop()
        return back

    def _at_door(self, address: int) -> None:
        if address == EXIT:
            self._run.value = self._engine.reg_read(self._cpu.result)
            self._stop("returned")
        elif address in self._callbacks:
            name, answer = self._callbacks[address]
            self._answer(name, address, answer)
        else:
            self._stop("left-image")

    def _leave(self, address: int) -> bool:
        """A call or jump to a function that is not being run; whether it was answered instead of run."""
        run = self._run
        found = self.program.symbols.at(address)
        if found is None or (found[1] and found[0].kind != "U"):
            try:
                executable = self.program.image.segment_at(address).executable
            except NotMapped:
                return False
            run.why = f"jumped to {self.program.symbols.describe(address)}" if executable else "ran into data"
            self._stop("left-image")
            return True
        symbol = found[0]
        if SILENT.fullmatch(symbol.name):
            for register in self._cpu.results if returns_shadow(symbol.name) else ():
                self._engine.reg_write(register, SHADOW)
            self._resume(self._pop())
            return True
        if symbol.name == "__stack_chk_fail":
            run.trap = self._trap_at("stack-protector", run.last)
            self._stop("trap")
            return True
        if symbol.kind != "U" and self.step_into is not None and self.step_into(symbol, self._arguments()):
            self._admit(symbol, symbol.address)
            run.inside.clear()
            return False
        answer = self.stubs.get(symbol.name)
        if answer is None:
            plain = SUFFIX.sub("", symbol.name)
            answer = self.stubs.get(plain, general_stub(plain))
        self._answer(symbol.name, address, answer)
        return True

    def _answer(self, name: str, address: int, answer: Stub) -> None:
        run = self._run
        arguments = self._arguments()
        value = (answer if isinstance(answer, int) else answer(self, arguments)) & MASK
        if len(run.calls) >= self.bounds.calls:
            self.reached("calls")
            self._stop("budget")
            return
        site = run.last
        if name in REPORTS:
            run.warnings.append(self._trap_at("warning", site))
        run.calls.append(Call(name, address, self.program.symbols.describe(site), site, arguments[:4], value))
        self._engine.reg_write(self._cpu.result, value)
        self._resume(self._pop())

    def _arguments(self) -> tuple[int, ...]:
        return tuple(self._engine.reg_read(register) for register in self._cpu.arguments)

    def _trap_at(self, kind: Any, address: int) -> Trap:
        return Trap(kind, self.program.symbols.describe(address), address)

    def _trapped(self, address: int, size: int) -> None:
        # kCFI compares the hash in front of the callee with the expected one and traps if they differ. Our callbacks,
        # and the functions that a module takes from elsewhere, have none: that is no finding. Every other trap is one.
        code = self.memory.read(address, size)
        start = address - CFI_CHECK
        before = self.memory.read(start, CFI_CHECK) if self.memory.holds(start) else b""
        register = self._cpu.cfi_register(before, code)
        if register is not None and register in self._cpu.general:
            value = self._engine.reg_read(self._cpu.general[register])
            if value in self._callbacks or self._is_undefined(value):
                self._resume(address + size)
                return
        if register is None and address in self._warnings:
            self._run.warnings.append(self._trap_at("warning", address))
            self._resume(address + size)
            return
        self._run.trap = self._trap_at("cfi" if register else "bug", address)
        self._stop("trap")

    @cached_property
    def _warnings(self) -> frozenset[int]:
        return warnings_of(self.program, self._cpu)

    def _is_undefined(self, address: int) -> bool:
        try:
            return self.program.image.segment_at(address).name == UNDEFINED
        except NotMapped:
            return False

    def _loaded(self, _engine: Any, _access: int, address: int, size: int, _value: int, _data: Any) -> None:
        address &= MASK
        if size <= 8 and not on_stack(address) and self.memory.holds(address):
            value = int.from_bytes(self._engine.mem_read(address, size), "little")
            if len(self._run.loads) >= self.bounds.loads:
                self.reached("loads")
            self._run.loads.append(Load(address, size, value, self._run.last))

    def _absent(self, _engine: Any, access: int, address: int, size: int, _value: int, _data: Any) -> bool:
        run = self._run
        address &= MASK
        if self.memory.bring_in(address) and (
            (address + size - 1) & ~(PAGE - 1) == address & ~(PAGE - 1) or self.memory.bring_in(address + size - 1)
        ):
            return True
        kind: Any = self._kinds[access]
        most = self.bounds.recent
        recent = tuple(load for load in tuple(run.loads)[: -2 * most - 1 : -1] if load.size == 8)[:most]
        if kind == "fetch":
            if run.next:
                self._note_call()
            through_variable = next(
                (load for load in recent[:3] if load.value == address and self._is_undefined(load.address)), None
            )
            if through_variable is not None:
                # A pointer in a variable of another program (pv_ops of a module): unknown, and no finding.
                name = f"*{self.program.symbols.describe(through_variable.address)}"
                self._answer(name, address, 0)
                return False
            open_frame = run.frames[-1] if run.frames and run.frames[-1].back == self._back() else None
            site = open_frame.site if open_frame else run.last
            at = open_frame.back if open_frame else run.last
        else:
            site = at = run.last
        run.fault = Fault(kind, address, self.program.symbols.describe(at), site, self._arguments()[:4], recent)
        run.exit = "fault"
        return False

    def _outcome(self, run: "Run") -> Outcome:
        describe = self.program.symbols.describe
        exit_: Any = run.exit or "left-image"
        return Outcome(
            function=run.function,
            exit=exit_,
            value=run.value if exit_ == "returned" else None,
            fault=run.fault,
            trap=run.trap,
            calls=tuple(run.calls),
            chain=tuple(describe(frame.back) for frame in reversed(run.frames)),
            why=(run.why or run.refused or "") if exit_ == "left-image" else "",
            instructions=run.count,
            trace=tuple(run.trace),
            loads=tuple(run.loads),
            warnings=tuple(run.warnings),
            bounds=tuple(sorted(run.bounds)),
        )
