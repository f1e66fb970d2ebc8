# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the module of `ejectable fix live` stands guard in the memory of a kernel: armed, for this build, and able.

Its probe has to be in the kernel's table of probes, at vp_del_vqs(), alive, and planted in the code. What it says that
it was built for has to be what runs. Then its handler itself is run, on a legacy device as the kernel's own probe
leaves it: the empty pointer must lead to a function afterwards, nothing else of the device may have changed, and with
that function vp_del_vqs() must ask about each queue and delete them all. A modern device it must leave alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ejectable.advisories.cve_2024_42134.experiment import FUNCTION
from ejectable.advisories.cve_2024_42134.live_part import LIVE
from ejectable.advisories.cve_2024_42134.scene import DEVICE_SIZE, Scene
from ejectable.advisories.live_part import resolve
from ejectable.errors import EjectableError, Missing
from ejectable.kernel import Program
from ejectable.kernel.kprobes import Kprobe
from ejectable.kernel.machine import Machine
from ejectable.kernel.memory import MemoryKernel
from ejectable.kernel.program import Symbol

__all__ = ["MODULE", "Hook", "find_hook"]

MODULE = "ejectable_live"
PROBE, HANDLER, BUILT_FOR = "ejectable_kprobe", "ejectable_act", "ejectable_target"
OWN = "ejectable_"  # what each function of the module begins with
ENDBR = 4  # bytes of endbr64, in front of which no probe is set (arch/x86/kernel/kprobes/core.c)
STRINGS = frozenset(("strlen", "strncmp", "strcmp", "strchr", "memcmp"))
MOST_TEXT = 256


class Hook(msgspec.Struct, frozen=True):
    """A module that stands guard; `answer` is the address of the function that it puts into the empty pointer."""

    answer: int
    detail: str


def find_hook(kernel: MemoryKernel, program: Program, scene: Scene, driver_build_id: str | None, offset: int) -> Hook:
    """The hook; raises `Missing` with the first thing that it lacks. `offset` is that of is_avq, by the types."""
    handler = _own(kernel, program, HANDLER)
    _armed(kernel, program, _own(kernel, program, PROBE), handler)
    _built_for(kernel, _own(kernel, program, BUILT_FOR), driver_build_id, program)
    return _fills(program, scene, handler, offset)


def _own(kernel: MemoryKernel, program: Program, name: str) -> int:
    symbol = program.symbols.get(name)
    if symbol is None or kernel.module_of(symbol.address) != MODULE:
        raise Missing(f"{MODULE} has no {name} in memory: it is another version's, or its symbols are not there.")
    return symbol.address


def _armed(kernel: MemoryKernel, program: Program, own: int, handler: int) -> None:
    """The probe is there, at the function, alive, with our handler, and the code leads to it."""
    vmlinux, function = kernel.vmlinux, program.symbols.function(FUNCTION)
    if vmlinux.types is None or function is None:
        raise Missing("The kernel's types were not found in memory.")
    found: list[Kprobe] = [probe for probe in kernel.kprobes(vmlinux) if own in probe.probes]
    if not found:
        raise Missing(f"The module {MODULE} has no probe in the kernel's table: it watches nothing.")
    if not 0 <= found[0].place - function.address <= ENDBR:
        raise Missing(f"The probe of {MODULE} is not at {FUNCTION}() as it is now.")
    if not found[0].planted:
        raise Missing(f"The probe of {MODULE} is not planted in the code of {FUNCTION}(): probes are switched off.")
    member = vmlinux.types.member("kprobe", "pre_handler")
    if member is None or int.from_bytes(kernel.read(own + member.offset, 8), "little") != handler:
        raise Missing(f"The probe of {MODULE} does not call {HANDLER}().")


def _built_for(kernel: MemoryKernel, place: int, driver_build_id: str | None, program: Program) -> None:
    if program.types is None:
        raise Missing("The kernel's types were not found in memory.")
    text = kernel.read(place, MOST_TEXT).partition(b"\0")[0].decode("ascii", "replace")
    expected = f"{kernel.build_id or ''} {driver_build_id or ''} {resolve(LIVE, program.types).digest}"
    if text != expected:
        raise Missing(f"{MODULE} was built for {text!r} (build-ids, layout), and this kernel is {expected!r}.")


def _fills(program: Program, scene: Scene, handler: int, offset: int) -> Hook:
    """Run the handler on a legacy device and on a modern one."""
    legacy = _handled(program, scene, handler, {})
    before = _device(scene, {})
    answer = int.from_bytes(legacy[offset : offset + 8], "little")
    same = legacy[:offset] + legacy[offset + 8 :] == before[:offset] + before[offset + 8 :]
    found = program.symbols.at(answer) if answer else None
    if found is None or found[1] or not same:
        what = "changes more than the pointer of" if answer else "does not fill the pointer of"
        raise Missing(f"{HANDLER}() was run, and {what} a legacy device.")
    modern = program.symbols.function("vp_is_avq")
    if modern is not None:
        patch = {offset: (modern.address, 8)}
        if _handled(program, scene, handler, patch) != _device(scene, patch):
            raise Missing(f"{HANDLER}() was run, and changes a modern device.")
    return Hook(answer, f"{HANDLER}() of {MODULE} was run and puts {found[0].name}() into the empty pointer")


def _device(scene: Scene, patches: dict[int, tuple[int, int]]) -> bytes:
    """The device as a run finds it."""
    scene.lay_out(patches)
    return scene.machine.memory.read(scene.device, DEVICE_SIZE)


def _handled(program: Program, scene: Scene, handler: int, patches: dict[int, tuple[int, int]]) -> bytes:
    """The device after the handler was run for it."""
    machine, types = scene.machine, scene.types
    bus = types.member("pci_dev", "dev.bus") if types else None
    pci = program.symbols.get("pci_bus_type")
    first = "di" if program.arch == "x86_64" else "user_regs"
    argument = types.member("pt_regs", first) if types else None
    if bus is None or pci is None or argument is None:
        raise Missing("The kernel's types do not tell how a probe's handler is called.")
    scene.lay_out(patches)
    registers = machine.alloc()
    machine.memory.write(registers + argument.offset, (scene.device + scene.vdev_offset).to_bytes(8, "little"))
    machine.memory.write(scene.parent + bus.offset, pci.address.to_bytes(8, "little"))
    with _as_module(program, machine):
        outcome = machine.call(handler, 0, registers)
    if outcome.exit != "returned" or (outcome.value or 0) & 0xFFFF_FFFF:
        raise Missing(f"{HANDLER}() could not be run: {outcome.story()}")
    return machine.memory.read(scene.device, DEVICE_SIZE)


@contextmanager
def _as_module(program: Program, machine: Machine) -> Iterator[None]:
    """Follow the module's own functions, and answer what it asks the kernel."""

    def described(machine: Machine, arguments: tuple[int, ...]) -> int:
        # sprint_symbol(buffer, address): "name+0x0/0x150 [module]"
        name, _, offset = program.symbols.describe(arguments[1]).partition("+")
        text = f"{name}+{offset or '0x0'}/0x1000"
        machine.memory.write(arguments[0], text.encode("ascii", "replace")[:MOST_TEXT] + b"\0")
        return len(text)

    def copied(machine: Machine, arguments: tuple[int, ...]) -> int:
        # copy_from_kernel_nofault(to, from, size): -EFAULT where nothing is
        to, start, size = arguments[:3]
        try:
            content = machine.memory.read(start, min(size, MOST_TEXT))
        except EjectableError:
            return -14 & 0xFFFF_FFFF_FFFF_FFFF
        machine.memory.write(to, content)
        return 0

    def follows(callee: Symbol, arguments: tuple[int, ...]) -> bool:
        del arguments
        return callee.name in STRINGS or callee.name.startswith(OWN)

    kept, machine.stubs = (
        machine.stubs,
        {
            **machine.stubs,
            "sprint_symbol": described,
            "copy_from_kernel_nofault": copied,
            "try_module_get": 1,
        },
    )
    into, machine.step_into = machine.step_into, follows
    try:
        yield
    finally:
        machine.stubs, machine.step_into = kept, into
