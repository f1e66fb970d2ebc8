# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of a kernel that runs, out of its memory, and whether the hook of `fix live` stands guard for them.

The kernel's own tree of PCI buses is walked (`pci_root_buses`), by its own types. A legacy device is guarded if the
module's hook is (see `hook`), and vp_del_vqs(), as it stands in memory, comes through with the function that the hook
puts there: it answers false, was asked, and every queue was deleted. That a module is loaded proves nothing.
"""

from collections.abc import Iterator
from functools import cached_property

import msgspec

from ejectable.advisories.code import locate
from ejectable.advisories.cve_2024_42134 import ADVISORY
from ejectable.advisories.cve_2024_42134.experiment import FUNCTION
from ejectable.advisories.cve_2024_42134.hook import MODULE, find_hook
from ejectable.advisories.cve_2024_42134.scene import QUEUES, Scene
from ejectable.errors import Missing
from ejectable.kernel import Program, Types
from ejectable.kernel.memory import MemoryKernel

__all__ = ["MODULE", "Driven", "Memory", "Repairs", "loaded", "repairs"]

DRIVER = "virtio-pci"
MODERN = "vp_is_avq"  # what the modern probe puts there
INDICES = (0, 1, 2, 0xFFFF)  # of queues, besides those of the scene
MOST_BUSES, MOST_DEVICES, MOST_NAME = 4096, 16384, 128


class Driven(msgspec.Struct, frozen=True):
    """One device that virtio-pci drives, as memory has it."""

    address: str  # 0000:00:06.0
    device: int  # where its struct virtio_pci_device is
    is_avq: int  # the pointer
    function: str | None  # the function that starts there
    module: str | None  # of that function, where it is a module's


class Repairs(msgspec.Struct, frozen=True):
    """What was found. `guarded`: the hook stands; `repaired` and `bare` are addresses of PCI devices."""

    guarded: bool
    repaired: tuple[str, ...]
    bare: tuple[str, ...]  # legacy, and not repaired
    detail: str


def repairs(kernel: MemoryKernel, modules: str, driver_build_id: str | None) -> Repairs:
    """Look at the hook and every device; raises an `EjectableError` where memory or types do not let it be decided.

    `modules` is /proc/modules, `driver_build_id` that of the virtio_pci that is loaded.
    """
    memory = Memory(kernel)
    legacy = [device for device in memory.devices if device.function is None or not _is(device.function, MODERN)]
    addresses = tuple(device.address for device in legacy)
    state = _state(modules)
    if state != "Live":
        return Repairs(
            guarded=False, repaired=(), bare=addresses, detail=f"{MODULE} is in state {state}: devices are not guarded"
        )
    is_avq = memory.offset("virtio_pci_device", "is_avq")
    try:
        hook = find_hook(kernel, memory.program, memory.scene, driver_build_id, is_avq)
    except Missing as error:
        return _unguarded(addresses, error.message.rstrip("."))
    if not memory.harmless(hook.answer):
        return Repairs(
            guarded=False,
            repaired=(),
            bare=addresses,
            detail=f"{FUNCTION}() does not come through with the function of {MODULE}",
        )
    # While vp_del_vqs() works on a device its pointer is filled; anything else there is somebody else's.
    guarded = [device.address for device in legacy if device.is_avq in (0, hook.answer)]
    bare = tuple(address for address in addresses if address not in guarded)
    detail = f"{hook.detail}; with it {FUNCTION}() was run and deleted all queues"
    if bare:
        detail += f"; something else is in the pointer of {', '.join(bare)}"
    return Repairs(guarded=True, repaired=tuple(guarded), bare=bare, detail=detail)


def _unguarded(legacy: tuple[str, ...], why: str) -> Repairs:
    return Repairs(guarded=False, repaired=(), bare=legacy, detail=why)


class Memory:
    """The PCI devices in a kernel's memory. Raises `Missing` where the kernel does not have what is needed."""

    def __init__(self, kernel: MemoryKernel) -> None:
        program, _ = locate(kernel, ADVISORY.code)
        vmlinux = kernel.vmlinux
        if program is None or vmlinux.types is None or program.types is None:
            raise Missing(f"{FUNCTION}() or the kernel's types were not found in memory.")
        self._kernel = kernel
        self.program: Program = program
        self._types: Types = program.types
        self._roots = vmlinux.symbols.get("pci_root_buses")
        if self._roots is None:
            raise Missing("The kernel's list of PCI buses was not found in memory.")

    def offset(self, struct: str, path: str) -> int:
        """In bytes; raises `Missing`."""
        member = self._types.member(struct, path)
        if member is None:
            raise Missing(f"The kernel's types have no {struct}.{path}.")
        return member.offset

    def pointer(self, address: int) -> int:
        """The eight bytes at `address`."""
        return int.from_bytes(self._kernel.read(address, 8), "little")

    @cached_property
    def devices(self) -> tuple[Driven, ...]:
        """Every device that virtio-pci drives now."""
        return tuple(self._driven())

    @cached_property
    def scene(self) -> Scene:
        """A legacy device as this kernel's own probe leaves it; raises `Missing` where that could not be run."""
        scene = Scene(self.program)
        if not scene.probe():
            raise Missing(f"The kernel's probe could not be run: {' '.join(scene.notes)}")
        return scene

    def harmless(self, pointer: int) -> bool:
        """Run what is there, and vp_del_vqs() of memory with this pointer in a legacy device.

        It must answer false of every queue by itself; and vp_del_vqs() must have asked it, and deleted all queues.
        """
        if not self._starts(pointer):
            return False
        scene = self.scene
        for index in (*QUEUES, *INDICES):
            answer = scene.machine.call(pointer, scene.device + scene.vdev_offset, index)
            if answer.exit != "returned" or answer.calls or (answer.value or 0) & 0xFF:
                return False
        outcome = scene.run(FUNCTION, {self.offset("virtio_pci_device", "is_avq"): (pointer, 8)})
        asked = any(callee.address == pointer and scene.asks(arguments) for callee, arguments in scene.followed)
        return outcome.exit == "returned" and asked and scene.deleted(outcome) >= len(QUEUES)

    def _starts(self, pointer: int) -> str | None:
        """The function that starts at this address."""
        found = self.program.symbols.at(pointer)
        return found[0].name if found and not found[1] and found[0].kind in "tTwW" else None

    def _driven(self) -> Iterator[Driven]:
        member, back = self.offset("virtio_pci_device", "is_avq"), self.offset("virtio_pci_device", "pci_dev")
        data, driver = self.offset("pci_dev", "dev.driver_data"), self.offset("pci_dev", "dev.driver")
        name = self.offset("pci_dev", "dev.kobj.name")
        for pci in self._pci_devices():
            bound = self.pointer(pci + driver)
            if not bound or self._text(bound + self.offset("device_driver", "name")) != DRIVER:
                continue
            device = self.pointer(pci + data)
            address = self._text(pci + name)
            if self.pointer(device + back) != pci:
                raise Missing(f"The driver's data of {address} is no struct virtio_pci_device that leads back to it.")
            is_avq = self.pointer(device + member)
            yield Driven(address, device, is_avq, self._starts(is_avq), self._kernel.module_of(is_avq))

    def _pci_devices(self) -> Iterator[int]:
        """The addresses of all struct pci_dev, bus by bus (include/linux/pci.h)."""
        assert self._roots is not None
        node, children = self.offset("pci_bus", "node"), self.offset("pci_bus", "children")
        below, on_bus = self.offset("pci_bus", "devices"), self.offset("pci_dev", "bus_list")
        heads = [self._roots.address]
        seen = 0
        while heads:
            for bus in self._list(heads.pop(), node, MOST_BUSES):
                seen += 1
                if seen > MOST_BUSES:
                    raise Missing(f"There are more than {MOST_BUSES} PCI buses in memory: the list makes no sense.")
                heads.append(bus + children)
                yield from self._list(bus + below, on_bus, MOST_DEVICES)

    def _list(self, head: int, offset: int, most: int) -> Iterator[int]:
        """The objects on a list; `offset` is that of the list's node in each (include/linux/list.h)."""
        position = self.pointer(head)
        for _ in range(most):
            if position == head:
                return
            yield position - offset
            position = self.pointer(position)
        raise Missing("A list in the kernel's memory does not end.")

    def _text(self, place: int) -> str:
        """The string that the pointer at `place` leads to."""
        address, text = self.pointer(place), b""
        while b"\0" not in text and len(text) < MOST_NAME:
            step = min(32, 4096 - (address + len(text)) % 4096)  # the next page may not be there
            text += self._kernel.read(address + len(text), step)
        return text.partition(b"\0")[0].decode("ascii", "replace")


def _is(found: str, name: str) -> bool:
    return found.partition(".")[0] == name


def _state(modules: str) -> str:
    """The module's state by /proc/modules (kernel/module/procfs.c, m_show): Live, Loading, Unloading."""
    fields = next((line.split() for line in modules.splitlines() if line.partition(" ")[0] == MODULE), [])
    return fields[4] if len(fields) > 4 else "unknown"


def loaded(modules: str) -> bool:
    """Whether /proc/modules lists the module."""
    return any(line.partition(" ")[0] == MODULE for line in modules.splitlines())
