# SPDX-License-Identifier: GPL-2.0-or-later
"""The precautions that look at the kernel itself: proven in its own memory, or the module is not even built."""

from collections.abc import Sequence

import msgspec

from ejectable.advisories.cve_2024_42134 import ADVISORY, live
from ejectable.advisories.cve_2024_42134.experiment import FUNCTION, Result
from ejectable.advisories.live_part import Measured, measure, resolve
from ejectable.advisories.probe import judge_program
from ejectable.assess.memory import look
from ejectable.errors import Missing
from ejectable.kernel.code import indirect_calls
from ejectable.kernel.memory import MemoryKernel
from ejectable.model import Device, EvidenceKind, Status
from ejectable.remedies.live.target import MODULE, Target
from ejectable.remedies.situation import Situation

__all__ = ["Proof", "prove"]

MODULE_OF_CODE = ADVISORY.code.module or ""
WATCH = "register_kretprobe"  # what the module stands on


class Proof(msgspec.Struct, frozen=True):
    """What holds, and so what the module may be built for; `details` say what was compared."""

    target: Target
    details: tuple[str, ...]


def prove(situation: Situation) -> Proof:
    """Every precaution, in the kernel that runs; raises `Missing` with the first one that does not hold."""
    running = situation.facts.running
    version = situation.root.text("/proc/sys/kernel/version", 256)
    if running is None or not running.release or not version:
        raise Missing("The running kernel does not say its release and version.", hint="Is /proc mounted?")
    if not running.build_id:
        raise Missing("The running kernel shows no build-id (/sys/kernel/notes): it cannot be told from others.")
    if MODULE_OF_CODE in running.modules and not running.modules[MODULE_OF_CODE]:
        raise Missing("The loaded virtio_pci shows no build-id: it cannot be told from others.")
    devices = situation.facts.devices or ()
    measured, details = look(
        situation.root,
        running,
        situation.limits,
        lambda kernel: _proven(kernel, devices),
        into=tuple[Measured, list[str]],
        ids=(ADVISORY.id,),
    )
    hook = resolve(ADVISORY.live_part, measured)  # numbers alone come out of there, and no line of C
    target = Target(running.release, version, running.build_id, running.modules.get(MODULE_OF_CODE), hook)
    target.header()  # raises for names that no header can hold
    return Proof(target, tuple(details))


def _proven(kernel: MemoryKernel, devices: Sequence[Device]) -> tuple[Measured, list[str]]:
    """What memory shows of it, and what was compared; this is what a confined process does."""
    memory = live.Memory(kernel)
    if memory.program.symbols.get(WATCH) is None:
        raise Missing(f"This kernel has no {WATCH}() (CONFIG_KPROBES is off): its functions cannot be watched.")
    measured, details = _faulty(memory)
    details += _called_nowhere_else(memory)
    details += _means_what_it_says(memory)
    details += _devices(memory, devices)
    return measured, details


def _faulty(memory: live.Memory) -> tuple[Measured, list[str]]:
    """Affected by executed proof, and three sources that agree on where the member is."""
    evidence, result = judge_program(ADVISORY, memory.program)
    if result.says is not Status.AFFECTED or not isinstance(result, Result) or result.slot is None:
        raise Missing(f"The running kernel was not proven to be affected: {result.detail}.", hint="There is no need.")
    types = memory.program.types
    assert types is not None  # Memory has asked for them
    measured, is_avq = measure(ADVISORY.live_part, types), memory.offset("virtio_pci_device", "is_avq")
    if is_avq != result.slot:
        raise Missing(
            f"The kernel's types put is_avq at {is_avq:#x}, and the code that was run reads it at "
            f"{result.slot:#x}: one of them is not this kernel's."
        )
    read = next((item for item in evidence if item.kind is EvidenceKind.DISASSEMBLY), None)
    if read is None or read.says is not Status.AFFECTED:
        raise Missing(
            f"The disassembly does not show the call through {is_avq:#x} that the run took: "
            f"{read.detail if read else 'nothing was found'}."
        )
    return measured, [
        f"executed in memory: {result.detail}",
        f"is_avq is at {is_avq:#x} by the run, by the disassembly and by the kernel's types",
    ]


def _called_nowhere_else(memory: live.Memory) -> list[str]:
    """The function that is watched is the only one that calls the member: no copy of it was inlined elsewhere."""
    program, is_avq = memory.program, memory.offset("virtio_pci_device", "is_avq")
    # Everything of virtio_pci's begins so (drivers/virtio/virtio_pci_*.c), where it is a module and where it is not.
    functions = [
        symbol for symbol in program.symbols if symbol.kind in "tT" and symbol.name.startswith(("vp_", "virtio_pci_"))
    ]
    for function in functions:
        if function.name.partition(".")[0] == FUNCTION:
            continue
        if any(call.loaded_from == is_avq for call in indirect_calls(program, function)):
            raise Missing(
                f"{function.name}() calls through {is_avq:#x} as well: {FUNCTION}() may be inlined there, and "
                "watching it alone would not do."
            )
    return [f"{FUNCTION}() is the only one of {len(functions)} functions of virtio_pci that calls is_avq"]


def _means_what_it_says(memory: live.Memory) -> list[str]:
    """pci_get_drvdata() of a device is its struct virtio_pci_device: by the kernel's own probe, which was run."""
    stage = memory.scene
    if stage.probed_by != "virtio_pci_probe" or stage.driver_data != stage.device:
        raise Missing("What virtio_pci_probe() keeps as the PCI device's data is not struct virtio_pci_device.")
    if memory.offset("virtio_pci_device", "vdev") != stage.vdev_offset:
        raise Missing("Where struct virtio_device is inside of struct virtio_pci_device is not certain.")
    return ["pci_get_drvdata() is struct virtio_pci_device: virtio_pci_probe() was run and put it there"]


def _devices(memory: live.Memory, shown: Sequence[Device]) -> list[str]:
    """Each device of this machine holds what a device of its kind must."""
    found = {device.address: device for device in memory.devices}
    modern = legacy = 0
    for device in shown:
        if device.transport != "pci" or device.address is None or device.mode == "unknown":
            continue
        here = found.get(device.address)
        if here is None:
            raise Missing(f"{device.name} ({device.address}) was not found among the PCI devices in memory.")
        holds = f"{here.function or f'{here.is_avq:#x}'}"
        if device.mode == "modern":
            modern += 1
            if here.function is None or here.function.partition(".")[0] != live.MODERN:
                raise Missing(
                    f"is_avq of {device.name}, a modern device, holds {holds}, and {live.MODERN} was expected: the "
                    "layout is not what it seems, or something else has changed it."
                )
        else:
            legacy += 1
            if here.is_avq and here.module != MODULE:
                raise Missing(
                    f"is_avq of {device.name}, a legacy device, holds {holds} and should be empty: something else has "
                    "repaired or changed it."
                )
    said = [f"{legacy} legacy device(s): is_avq is empty, and their struct leads back to their PCI device"]
    if modern:
        said.append(f"{modern} modern device(s): is_avq holds {live.MODERN}, as it must")
    return said
