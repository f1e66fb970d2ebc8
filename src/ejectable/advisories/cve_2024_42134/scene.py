# SPDX-License-Identifier: GPL-2.0-or-later
"""A legacy virtio device with two queues, in the machine, as the kernel's own legacy probe leaves it.

Where the kernel carries types the objects are laid out by them. Where it does not, the code says what it needs:
it is run, and a null pointer that it reads through is given an empty object; the first one it follows from the
device is the list of queues.
"""

from collections.abc import Callable
from functools import cached_property

from ejectable.advisories.cve_2024_42134.declarations import member_at
from ejectable.kernel import Program, Types
from ejectable.kernel.machine import Bounds as MachineBounds
from ejectable.kernel.machine import Fault, Load, Machine, Object, Outcome
from ejectable.kernel.machine.memory import MARK
from ejectable.kernel.program import NotMapped, Symbol

__all__ = ["DEFAULT", "DEVICE_SIZE", "QUEUES", "Bounds", "Scene", "calls_null"]

# Of an object whose type is not known: more than any struct virtio_pci_device so far (1.1 KiB in v6.8).
DEVICE_SIZE = 0x2000
QUEUE_SIZE = 0x400
# Two queues, with numbers that nothing else has by chance.
QUEUES = (5, 9)
# struct virtqueue since v2.6.38 (include/linux/virtio.h): list first, then three pointers, then the index.
LIST, CALLBACK, NAME, VDEV, INDEX = 0, 16, 24, 32, 40
# The device's record of one queue, and where a legacy function's identity stands (include/uapi/linux/pci_ids).
PCI_VENDOR, PCI_DEVICE = 0x1AF4, 0x1001
NEAR_NULL = 0x1_0000
PAGE = 4096
HASH = (1 << 64) - 64  # where kCFI looks for the hash of a function at address 0
PASSES_ON = frozenset(("free_irq", "devm_free_irq", "request_irq", "request_threaded_irq"))
ENODEV = 19
# struct virtio_pci_legacy_device since v5.16 (include/linux/virtio_pci_legacy.h): pci_dev, isr, ioaddr.
IOADDR = 16


def calls_null(fault: Fault) -> bool:
    """Whether it is the call of a null pointer: of address 0 or, of a table that is not there, of one near it."""
    # kCFI reads the hash in front of the callee (4 bytes before it) and faults on that.
    return (fault.access == "fetch" and fault.address < PAGE) or (fault.access == "read" and fault.address >= HASH)


class Bounds(MachineBounds, frozen=True):
    """How much is tried for one kernel. Whatever comes to one of these keeps a safe word from being said."""

    repairs: int = 40  # places where a run follows a null pointer and is given an object
    functions: int = 256  # of the driver that are read for their indirect calls
    conditions: int = 64  # values that a run read and that are changed
    numbers: int = 64  # that the code compares something with
    runs: int = 1200  # with one value changed


DEFAULT = Bounds()


class Scene:
    """The objects of the experiment. Addresses stay the same from run to run; the contents are put back before each."""

    def __init__(self, program: Program, bounds: Bounds = DEFAULT) -> None:
        self.program = program
        self.bounds = bounds
        self.reached: dict[str, None] = {}  # what ran out, one phrase each: less was seen than there is
        self.followed: list[tuple[Symbol, tuple[int, ...]]] = []
        self.met: dict[int, Symbol] = {}  # all that were ever followed, or called as the legacy probe's, by address
        self.machine = Machine(program, step_into=self._step_into, stubs=self._stubs(), bounds=bounds)
        types = program.types
        struct = types.struct("virtio_pci_device") if types else None
        # Without the kernel's own types (a module alone has only its part of them) the inner structs are missing.
        whole = struct is not None and types is not None and types.member("virtio_pci_device", "vdev.vqs") is not None
        self.types: Types | None = types if whole else None
        self.partial = struct is not None
        memory = self.machine.memory
        self.device = memory.allocate(DEVICE_SIZE)
        self.queues = tuple(memory.allocate(QUEUE_SIZE) for _ in QUEUES)
        self.vqs_offset: int | None = self._offset("vdev.vqs")
        self.vdev_offset = self._offset("vdev") or 0
        self.legacy_callbacks: dict[int, int] = {}  # offset in the device → the function that the legacy probe set
        self.legacy_scalars: dict[int, int] = {}  # offset → byte that it set otherwise
        self.notes: list[str] = []
        self.probed_by: str | None = None
        self.refused = False  # virtio_pci_probe() answered -ENODEV
        self._created = False
        self._extras: dict[int, int] = {}
        self._probing = False
        self.parent = self.machine.alloc()  # the PCI device
        self.parent_size = 4096
        if types is not None and types.struct("pci_dev") is not None:
            self._identify()
        if self.types:
            self._fill_in()
        self._base = self._fresh = memory.snapshot()

    def _offset(self, path: str) -> int | None:
        member = self.types.member("virtio_pci_device", path) if self.types else None
        return member.offset if member else None

    def _identify(self) -> None:
        """By the kernel's types: a PCI device that says what it is.

        Until v5.15 the legacy probe reads that itself, and until v5.10 a module has no types of its own: those of the
        kernel, which it is for, have this struct and not the module's.
        """
        pci = self.machine.types.struct("pci_dev")
        assert pci is not None
        parent = self.machine.new("pci_dev")
        self.parent, self.parent_size = int(parent), pci.size
        for name, value in (("vendor", PCI_VENDOR), ("device", PCI_DEVICE)):
            if parent.has(name):
                setattr(parent, name, value)

    def _fill_in(self) -> None:
        """By the types: what every device has when its queues were set up."""
        machine = self.machine
        device = self._object()
        if device.has("pci_dev"):
            device.pci_dev = self.parent
        record = machine.types.struct("virtio_pci_vq_info")
        if record is not None and device.has("vqs"):
            table = machine.alloc()
            device.vqs = table
            for number, queue in zip(QUEUES, self.queues, strict=True):
                info = machine.new("virtio_pci_vq_info")
                if info.has("vq"):
                    info.vq = queue
                if info.has("node"):
                    info.sub("node").init()
                machine.memory.write(table + 8 * number, int(info).to_bytes(8, "little"))

    def _object(self) -> Object:
        return Object(self.machine, "virtio_pci_device", self.device)

    def _stubs(self) -> dict[str, int | Callable[[Machine, tuple[int, ...]], int]]:
        def mapped(machine: Machine, _arguments: tuple[int, ...]) -> int:
            return machine.memory.allocate(4096)

        def identified(machine: Machine, arguments: tuple[int, ...]) -> int:
            # vp_legacy_probe() maps the registers of a legacy function and succeeds.
            member = self.types.member("virtio_pci_legacy_device", "ioaddr") if self.types else None
            place = arguments[0] + (member.offset if member else IOADDR)
            if machine.memory.owns(place):
                machine.memory.write(place, machine.memory.allocate(4096).to_bytes(8, "little"))
            return 0

        def created(machine: Machine, _arguments: tuple[int, ...]) -> int:
            # The first thing that virtio_pci_probe() allocates is the device.
            if self._probing and not self._created:
                self._created = True
                return self.device
            return machine.memory.allocate(4096)

        allocators = ("kmalloc_trace", "kmem_cache_alloc_trace", "__kmalloc", "kmem_cache_alloc",
                      "__kmalloc_cache_noprof", "__kmalloc_noprof", "kmalloc_trace_noprof")  # fmt: skip
        names = ("pci_iomap", "pci_iomap_range", "pcim_iomap", "ioport_map", "ioremap", "devm_ioremap")
        return {
            **dict.fromkeys(names, mapped),
            **dict.fromkeys(allocators, created),
            "vp_legacy_probe": identified,
            # What the modern driver says to a device that is legacy: there are no capabilities.
            "virtio_pci_modern_probe": -ENODEV,
            # The same, where link-time optimisation has made that one a part of virtio_pci_probe().
            "vp_modern_probe": -ENODEV,
        }

    def _step_into(self, callee: Symbol, arguments: tuple[int, ...]) -> bool:
        """Follow what works on the device or a queue: helpers of vp_del_vqs(), whatever they are called."""
        if self._probing:
            return callee.name.startswith("virtio_pci_legacy_probe")
        if callee.address in self.legacy_callbacks.values():
            self.met[callee.address] = callee
            self.followed.append((callee, arguments))
            # What the legacy probe put into the device answers itself, if it asks about a queue.
            return self.asks(arguments)
        own = {self.device, self.device + self.vdev_offset}
        follow = arguments[0] in own.union(self.queues) or callee.name.startswith("vp_")
        # A helper may have the device in another place; so has free_irq(), which only passes it on.
        follow = follow or (not own.isdisjoint(arguments[1:4]) and callee.name not in PASSES_ON)
        if follow:
            self.met[callee.address] = callee
            self.followed.append((callee, arguments))
        return follow

    def asks(self, arguments: tuple[int, ...]) -> bool:
        """Whether a call asks about one of our queues: (device, index)."""
        return arguments[0] == self.device + self.vdev_offset and arguments[1] & 0xFFFF_FFFF in QUEUES

    @property
    def driver_data(self) -> int | None:
        """What the probe left as the PCI device's driver data, pci_get_drvdata(); `None` without types to tell."""
        member = self.program.types.member("pci_dev", "dev.driver_data") if self.program.types else None
        return self.machine.memory.word(self.parent + member.offset) if member else None

    # The legacy probe

    def probe(self) -> bool:
        """Let the kernel's own code probe the device as a legacy one; whether it did. The device stays as it left it.

        virtio_pci_probe() where the modern driver declines; where that cannot be followed, the legacy driver's part.
        """
        for name in ("virtio_pci_probe", "virtio_pci_legacy_probe"):
            symbol = self.program.symbols.function(name)
            if symbol is None:
                continue
            self._probing, self._extras = True, {}
            try:
                outcome = self._noted(self._settled(symbol.name, {}))
            finally:
                self._probing = False
            if outcome.exit == "returned" and not (outcome.value or 0) & 0xFFFF_FFFF and self._take_over():
                self.probed_by = name
                return True
            if outcome.exit == "returned" and outcome.value is not None and name == "virtio_pci_probe":
                self.refused = outcome.value & 0xFFFF_FFFF == -ENODEV & 0xFFFF_FFFF
            self.notes.append(f"{name}() did not come through: {outcome.story()}.")
        self._extras = {}
        return False

    def _take_over(self) -> bool:
        """Keep the device as it is now, if callbacks were set."""
        memory = self.machine.memory
        content = memory.read(self.device, DEVICE_SIZE)
        callbacks = {}
        for offset in range(0, DEVICE_SIZE, 8):
            value = int.from_bytes(content[offset : offset + 8], "little")
            found = self.program.symbols.at(value) if value and self._is_code(value) else None
            if found and not found[1] and found[0].kind in "tTwW":
                callbacks[offset] = value
        if len(callbacks) < 2:
            return False
        before = dict(self._base)[self.device]
        self.legacy_callbacks = callbacks
        self.legacy_scalars = {
            offset: content[offset]
            for offset in range(DEVICE_SIZE)
            if content[offset] != before[offset] and offset & ~7 not in callbacks
        }
        self._fresh, self._base = self._base, memory.snapshot()
        return True

    def probe_again(self, pokes: dict[int, tuple[int, int]], stubs: dict[str, int]) -> tuple[Outcome, bytes]:
        """The same probe once more with something changed: how it ended, and the device as it left it.

        `pokes`: address → (value, size); `stubs`: of functions that are not run.
        """
        machine, base, kept = self.machine, self._base, dict(self.machine.stubs)
        self._base, self._probing = self._fresh, True
        machine.stubs.update(stubs)
        try:
            outcome = self._poked(self.probed_by or "virtio_pci_probe", pokes)
            return outcome, machine.memory.read(self.device, DEVICE_SIZE)
        finally:
            self._base, self._probing, machine.stubs = base, False, kept

    def _is_code(self, address: int) -> bool:
        try:
            return self.program.image.segment_at(address).executable
        except NotMapped:
            return False

    # Runs of vp_del_vqs

    def run(
        self,
        function: str | Symbol,
        patches: dict[int, tuple[int, int]] | None = None,
        pokes: dict[int, tuple[int, int]] | None = None,
    ) -> Outcome:
        """Run the function on the device with its queues. `patches`: offset in the device → (value, size).

        Where memory is missing that a real device would have, it is given and the run repeated. `pokes` are the same
        for addresses anywhere, and nothing is repeated for them.
        """
        return self._poked(function, pokes) if pokes else self._noted(self._settled(function, patches or {}))

    def _poked(self, function: str | Symbol, pokes: dict[int, tuple[int, int]]) -> Outcome:
        outcome = self._once(function, {}, pokes=pokes)
        if outcome.bounds and any(value > 1 for value, _ in pokes.values()):
            # A count that was made huge is a loop that hides what is behind it: one time round shows that.
            outcome = self._once(function, {}, pokes={address: (1, size) for address, (_, size) in pokes.items()})
        return self._noted(outcome)

    def _noted(self, outcome: Outcome) -> Outcome:
        for name in outcome.bounds:
            self.reached.setdefault(f"a run of {outcome.function}() came to the bound of its {name}")
        return outcome

    def _settled(self, function: str | Symbol, patches: dict[int, tuple[int, int]]) -> Outcome:
        outcome = self._once(function, patches)
        for _ in range(self.bounds.repairs):
            fault = outcome.fault
            if fault is None or fault.access == "fetch" or fault.address >= NEAR_NULL:
                return outcome
            followed = self._followed_from(outcome, function, patches)
            if followed is None or followed in self._extras:
                return outcome
            offset = followed - self.device
            if self.vqs_offset is None and not self._probing and 0 <= offset < DEVICE_SIZE:
                self.vqs_offset = offset
            else:
                self._extras[followed] = self.machine.alloc()
            outcome = self._once(function, patches)
        self.reached.setdefault(f"memory was missing in more than {self.bounds.repairs} places")
        return outcome

    def _followed_from(
        self, outcome: Outcome, function: str | Symbol, patches: dict[int, tuple[int, int]]
    ) -> int | None:
        """Where the null pointer stands that was followed; `None` if it is in no object of ours."""
        loads = outcome.fault.loads if outcome.fault else ()
        nulls = [load.address for load in loads if not load.value and self.machine.memory.owns(load.address)]
        candidates = list(dict.fromkeys(nulls))
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        # Several were read: mark one after the other, and see whose mark the fault carries.
        for address in candidates:
            marked = self._once(function, patches, {address: MARK})
            if marked.fault and MARK <= marked.fault.address < MARK + NEAR_NULL:
                return address
        return None

    def _once(
        self,
        function: str | Symbol,
        patches: dict[int, tuple[int, int]],
        marks: dict[int, int] | None = None,
        *,
        pokes: dict[int, tuple[int, int]] | None = None,
    ) -> Outcome:
        memory = self.machine.memory
        self.lay_out(patches)
        for address, value in (marks or {}).items():
            memory.write(address, value.to_bytes(8, "little"))
        argument = self.device + self.vdev_offset
        if self._probing:
            argument = self.parent if str(function).startswith("virtio_pci_probe") else self.device
        # What is not in an object stays as a run left it: put that back.
        before = {address: memory.read(address, size) for address, (_, size) in (pokes or {}).items()}
        for address, (value, size) in (pokes or {}).items():
            memory.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        try:
            return self.machine.call(function, argument)
        finally:
            for address, content in before.items():
                memory.write(address, content)

    def lay_out(self, patches: dict[int, tuple[int, int]]) -> None:
        """Put every object back as it is before a run. `patches`: offset in the device → (value, size)."""
        memory = self.machine.memory
        memory.restore(self._base)
        self.followed.clear()
        self._created = False
        for address, extra in self._extras.items():
            memory.write(address, extra.to_bytes(8, "little"))
        if not self._probing:
            self._line_up()
        for offset, (value, size) in patches.items():
            memory.write(self.device + offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def _line_up(self) -> None:
        """Put the queues on the device's list."""
        memory = self.machine.memory
        for number, queue in zip(QUEUES, self.queues, strict=True):
            memory.write(queue + self._of_queue("vdev", VDEV), (self.device + self.vdev_offset).to_bytes(8, "little"))
            memory.write(queue + self._of_queue("index", INDEX), number.to_bytes(4, "little"))
        if self.vqs_offset is None:
            return
        head = self.device + self.vqs_offset
        ring = [head, *(queue + self._of_queue("list", LIST) for queue in self.queues)]
        for position, here in enumerate(ring):
            memory.write(here, ring[(position + 1) % len(ring)].to_bytes(8, "little"))
            memory.write(here + 8, ring[position - 1].to_bytes(8, "little"))

    def _of_queue(self, name: str, known: int) -> int:
        member = self.types.member("virtqueue", name) if self.types else None
        return member.offset if member else known

    # What happened

    def slot(self, load: Load) -> int | None:
        """The offset in the device that was read; `None` for something else."""
        offset = load.address - self.device
        return offset if 0 <= offset < DEVICE_SIZE else None

    def null_callback(self, outcome: Outcome, *, any_queue: bool = False) -> int | None:
        """The offset of the null pointer in the device that was called to ask about a queue; `None` if none was.

        `any_queue`: whatever number it was asked about.
        """
        fault = outcome.fault
        if fault is None or not calls_null(fault) or (fault.access == "fetch" and fault.address):
            return None
        if not (self.asks(fault.arguments) or (any_queue and fault.arguments[0] == self.device + self.vdev_offset)):
            return None
        return next((slot for load in fault.loads if not load.value and (slot := self.slot(load)) is not None), None)

    def deleted(self, outcome: Outcome) -> int:
        """How many of the queues were deleted: handed, one after the other, to a callback that the probe had set."""
        targets = set(self.legacy_callbacks.values())
        handed: dict[int, set[int]] = {}
        for call in outcome.calls:
            if call.address in targets or call.name.startswith("callback"):
                handed.setdefault(call.address, set()).add(call.arguments[0])
        return max((len(arguments) for arguments in handed.values()), default=0)

    def member(self, name: str) -> int | None:
        """The offset of a direct member of struct virtio_pci_device; `None` if it has none, or no types tell."""
        member = self.program.types.member("virtio_pci_device", name) if self.program.types else None
        return member.offset if member else None

    def name(self, offset: int) -> str:
        """What stands there, for people: "is_avq", "vdev.features", or "the field at 0x448 of the device"."""
        found = member_at(self.program.types, "virtio_pci_device", offset)
        return found or f"the field at {offset:#x} of the device"

    def place(self, address: int) -> str:
        """The same for any address that a run has read."""
        if self.owns(address):
            return self.name(address - self.device)
        offset = address - self.parent
        if 0 <= offset < self.parent_size:
            found = member_at(self.program.types, "pci_dev", offset)
            return f"pci_dev.{found}" if found else f"the field at {offset:#x} of the PCI device"
        queue = next((queue for queue in self.queues if 0 <= address - queue < QUEUE_SIZE), None)
        if queue is not None:
            found = member_at(self.program.types, "virtqueue", address - queue)
            return f"virtqueue.{found}" if found else f"the field at {address - queue:#x} of the queue"
        return f"the variable {self.program.symbols.describe(address).removesuffix('+0x0')}"

    def owns(self, address: int) -> bool:
        """Whether it is in the device."""
        return 0 <= address - self.device < DEVICE_SIZE

    def is_data(self, address: int) -> bool:
        """Whether it is in the image, and so a variable of the kernel's."""
        try:
            return bool(self.program.image.segment_at(address))
        except NotMapped:
            return False

    def decides(self, address: int) -> bool:
        """Whether it is in a queue, and no pointer that holds the queues together."""
        for queue in self.queues:
            offset = address - queue
            if 0 <= offset < QUEUE_SIZE:
                return not (offset < 16 or self._of_queue("vdev", VDEV) <= offset < self._of_queue("vdev", VDEV) + 8)
        return False

    @cached_property
    def modern(self) -> int:
        """Another device, as this one is now, but with a function wherever it has no pointer: a modern one has it."""
        memory = self.machine.memory
        content = dict(self._base)[self.device]
        other, somewhere = memory.allocate(DEVICE_SIZE), self.machine.callback("another device's callback", 0)
        words = (content[at : at + 8] for at in range(0, DEVICE_SIZE, 8))
        filled = b"".join(word if any(word) else somewhere.to_bytes(8, "little") for word in words)
        self._base = (*self._base, (other, filled))
        return other

    def is_list(self, slot: int) -> bool:
        """Whether the device's list of queues is there."""
        return self.vqs_offset is not None and self.vqs_offset <= slot < self.vqs_offset + 16
