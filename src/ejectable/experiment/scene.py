# SPDX-License-Identifier: GPL-2.0-or-later
"""A scene: a machine of its own, with objects laid out in it, and services that what is under test may need.

scene = bench.scene(follow=("vp_*",), stubs={"pci_alloc_irq_vectors_affinity": -28})
device = scene.new("virtio_pci_device", setup_vq=scene.callback("setup_vq", make_queue))
entries = scene.array("virtqueue_info", 3)
netdev, private = scene.with_private("net_device", "netfront_info")
outcome = scene.run("vp_find_vqs", device.vdev, 3, pointers, entries, 0)
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ejectable.errors import Missing
from ejectable.kernel.machine import Bounds, Machine, Object, Outcome, Stub
from ejectable.kernel.program import NotMapped, Program, Symbol, Types

__all__ = ["Grave", "Scene", "answers"]

NETDEV_ALIGN = 32  # include/linux/netdevice.h
FREE_FIRST = ("kfree", "kvfree", "vfree", "kfree_sensitive", "kvfree_sensitive", "kfree_const", "free_netdev")
FREE_SECOND = ("kmem_cache_free",)
TICK_NS, JIFFY_NS = 1_000_000, 4_000_000


class Grave(msgspec.Struct, frozen=True):
    """Something that was freed: where it began, its size in bytes, what it was, and who freed it."""

    start: int
    size: int
    what: str
    by: str
    again: bool = False  # of a bad free: it had been freed before


def answers(*values: int, then: int = 0) -> Stub:
    """A stub that answers each of `values` once, in order, and `then` from there on."""
    left = list(values)

    def answer(_machine: Machine, _arguments: tuple[int, ...]) -> int:
        return left.pop(0) if left else then

    return answer


class Scene:
    """One machine and what stands in it. `follow` are patterns of functions that are run, and not answered.

    With `free`, what is freed is unmapped: whoever touches it later ends the run. `types` stand in for the
    program's own.
    """

    def __init__(
        self,
        program: Program,
        *,
        bounds: Bounds,
        types: Types | None = None,
        follow: Sequence[str] = (),
        stubs: Mapping[str, Stub] | None = None,
        free: bool = False,
    ) -> None:
        self.program = program
        self._follow = tuple(follow)
        self.graves: list[Grave] = []
        self.bad_frees: list[Grave] = []
        self._names: dict[int, tuple[int, str]] = {}
        self._now_ns = TICK_NS
        self.machine = Machine(program, types=types, bounds=bounds, step_into=self._steps_into if follow else None)
        self.machine.stubs.update({**self._clock(), **(self._freeing() if free else {}), **(stubs or {})})
        self._one_processor()

    # Objects

    def new(self, struct: str, /, *, having: Sequence[str] = (), **members: "int | Object") -> Object:
        """A zeroed object of this type. `having` names members that tell it from other types of the same name.

        Raises `Missing` where the kernel has no such type, or several that fit.
        """
        made = self.machine.new(self.type_of(struct, having))
        self._name(made.__index__(), self.size(struct, having), f"the {struct}")
        return made.set(**members)

    def type_of(self, struct: str, having: Sequence[str] = ()) -> str:
        """The name by which the types know the struct that has these members. Raises `Missing`."""
        found = self.machine.types.homonyms(struct, having)
        if len(found) != 1:
            with_members = f" with {', '.join(having)}" if having else ""
            count = "no" if not found else f"{len(found)} different ones of"
            raise Missing(f"{self.program.name} has {count} struct {struct}{with_members}.")
        return found[0]

    def size(self, struct: str, having: Sequence[str] = ()) -> int:
        """The size of a type in bytes. Raises `Missing`."""
        found = self.machine.types.struct(self.type_of(struct, having))
        if found is None:
            raise Missing(f"{self.program.name} has no struct {struct}.")
        return found.size

    def offset(self, struct: str, member: str, having: Sequence[str] = ()) -> int:
        """Where a member is in its struct, in bytes. Raises `Missing`."""
        found = self.machine.types.member(self.type_of(struct, having), member)
        if found is None:
            raise Missing(f"{self.program.name} has no {struct}.{member}.")
        return found.offset

    def has(self, struct: str, member: str) -> bool:
        """Whether the kernel has this type, with this member."""
        return self.machine.types.member(struct, member) is not None

    def array(self, struct: str, count: int, having: Sequence[str] = ()) -> list[Object]:
        """`count` zeroed objects of this type, one behind the other."""
        size = self.size(struct, having)
        start = self.alloc(size * count, f"an array of {struct}")
        return [self.at(struct, start + size * number, having) for number in range(count)]

    def at(self, struct: str, address: int, having: Sequence[str] = ()) -> Object:
        """The object of this type at an address: inside of another one, or that a run has made."""
        return Object(self.machine, self.type_of(struct, having), address)

    def with_private(self, outer: str, inner: str, *, align: int = NETDEV_ALIGN) -> tuple[Object, Object]:
        """An object and its private part behind it, as netdev_priv() finds it: the outer size rounded up to `align`.

        From v6.9 on struct net_device ends in the array `priv` itself, and its size is a multiple of the alignment.
        """
        size = self.size(outer)
        place = self.offset(outer, "priv") if self.has(outer, "priv") else -(-size // align) * align
        start = self.alloc(place + self.size(inner), f"the {outer} with its {inner}")
        return self.at(outer, start), self.at(inner, start + place)

    def alloc(self, size: int = 4096, what: str = "an object") -> int:
        """The address of `size` zero bytes; `what` it is, for people."""
        address = self.machine.alloc(size)
        self._name(address, size, what)
        return address

    def text(self, content: str) -> int:
        """The address of a C string."""
        data = content.encode() + b"\0"
        address = self.alloc(len(data), "a string")
        self.machine.memory.write(address, data)
        return address

    def pointers(self, *values: "int | Object") -> int:
        """The address of an array of these pointers."""
        address = self.alloc(8 * max(len(values), 1), "an array of pointers")
        for number, value in enumerate(values):
            self.machine.memory.write(address + 8 * number, value.__index__().to_bytes(8, "little"))
        return address

    def operations(self, struct: str, **answered: Stub) -> Object:
        """An object of this type with a callback in each of its function pointers, named by its member."""
        made = self.new(struct)
        found = self.machine.types.struct(struct)
        for member in found.members if found else ():
            if member.size == 8 and "(*)" in member.type_name:
                setattr(made, member.name, self.callback(member.name, answered.get(member.name, 0)))
        return made

    def callback(self, name: str, answer: Stub = 0) -> int:
        """The address of a function of ours, whose calls are recorded under `name`."""
        return self.machine.callback(name, answer)

    def word(self, address: int) -> int:
        """The pointer at an address."""
        return self.machine.memory.word(address)

    # Running

    def run(self, function: str | Symbol, *arguments: "int | Object") -> Outcome:
        """Run it to its end. Raises `Missing` where the kernel has no such function."""
        return self.machine.call(function, *arguments)

    def target(self, table: str, struct: str, member: str) -> Symbol:
        """The function that a member of a static object of the kernel's points to: of pci_driver, remove.

        Raises `Missing` where there is no such object, or it points to no function.
        """
        value = self.pointed_to(table, struct, member)
        found = self.program.symbols.at(value) if value else None
        if found is None or found[1]:
            raise Missing(f"{self.program.name}: {table}.{member} points to no function.")
        return found[0]

    def pointed_to(self, table: str, struct: str, member: str) -> int:
        """What a member of a static object of the kernel's holds: 0 for NULL. Raises `Missing`."""
        symbol = self.program.symbols.get(table)
        if symbol is None:
            raise Missing(f"{self.program.name} has no {table}.")
        try:
            data = self.program.image.read(symbol.address + self.offset(struct, member), 8)
        except NotMapped as error:
            raise Missing(f"{self.program.name}: {table} is not in the image.") from error
        return int.from_bytes(data, "little")

    def grave_of(self, address: int) -> Grave | None:
        """What was freed and had been at this address; `None` if nothing was."""
        return next((grave for grave in self.graves if grave.start <= address < grave.start + grave.size), None)

    # Services

    def _steps_into(self, callee: Symbol, arguments: tuple[int, ...]) -> bool:  # noqa: ARG002  (the protocol's)
        name = callee.name.partition(".")[0]
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._follow)

    def _name(self, address: int, size: int, what: str) -> None:
        self._names[address] = (size, what)

    def _freeing(self) -> dict[str, Stub]:
        def freeing(argument: int) -> Callable[[Machine, tuple[int, ...]], int]:
            def free(machine: Machine, arguments: tuple[int, ...]) -> int:
                self._free(machine, arguments[argument])
                return 0

            return free

        return {**dict.fromkeys(FREE_FIRST, freeing(0)), **dict.fromkeys(FREE_SECOND, freeing(1))}

    def _free(self, machine: Machine, address: int) -> None:
        if address < 4096:  # kfree(NULL), and ZERO_SIZE_PTR
            return
        by = machine.where
        grave = self.grave_of(address)
        if grave is not None:
            self.bad_frees.append(Grave(address, 0, grave.what, by, again=True))
            return
        size = machine.memory.discard(address)
        if size is None:
            inside = next(
                (what for start, (length, what) in self._names.items() if start < address < start + length), None
            )
            if inside is not None:
                self.bad_frees.append(Grave(address, 0, inside, by))
            return
        what = self._names.get(address, (size, "an object that the run had made"))[1]
        self.graves.append(Grave(address, size, what, by))

    def _clock(self) -> dict[str, Stub]:
        """A clock that goes on with every look at it, and with every sleep."""

        def look(_machine: Machine, _arguments: tuple[int, ...]) -> int:
            self._now_ns += TICK_NS
            return self._now_ns

        def sleep(unit_ns: int) -> Callable[[Machine, tuple[int, ...]], int]:
            def stub(machine: Machine, arguments: tuple[int, ...]) -> int:
                self._now_ns += min(arguments[0], 1 << 20) * unit_ns
                self._tick(machine)
                return 0

            return stub

        looks = ("ktime_get", "ktime_get_with_offset", "ktime_get_mono_fast_ns", "sched_clock", "local_clock")
        sleeps = {"msleep": 1_000_000, "usleep_range_state": 1_000, "schedule_timeout": JIFFY_NS}
        sleeps |= dict.fromkeys(("schedule_timeout_uninterruptible", "schedule_timeout_interruptible"), JIFFY_NS)
        return {**dict.fromkeys(looks, look), **{name: sleep(unit) for name, unit in sleeps.items()}}

    def _tick(self, machine: Machine) -> None:
        symbol = self.program.symbols.get("jiffies") or self.program.symbols.get("jiffies_64")
        if symbol is not None and symbol.kind != "U" and machine.memory.holds(symbol.address):
            machine.memory.write(symbol.address, (self._now_ns // JIFFY_NS).to_bytes(8, "little"))

    def _one_processor(self) -> None:
        """One processor is possible, present and online: loops over processors end after the first."""
        memory, symbols = self.machine.memory, self.program.symbols
        values: dict[str, tuple[int, int]] = {"nr_cpu_ids": (1, 4)}
        values |= {f"__cpu_{kind}_mask": (1, 8) for kind in ("possible", "present", "online", "active")}
        values["__per_cpu_offset"] = (self.machine.percpu, 8)
        for name, (value, size) in values.items():
            symbol = symbols.get(name)
            if symbol is not None and symbol.kind != "U" and memory.holds(symbol.address):
                memory.write(symbol.address, value.to_bytes(size, "little"))
        stubs: dict[str, Stub] = {
            **dict.fromkeys(("__alloc_percpu", "__alloc_percpu_gfp", "pcpu_alloc", "pcpu_alloc_noprof"), _percpu),
            "_find_first_bit": lambda machine, arguments: _find_bit(machine, arguments[0], arguments[1], 0),
            "_find_next_bit": lambda machine, arguments: _find_bit(machine, arguments[0], arguments[1], arguments[2]),
        }
        for name, stub in stubs.items():
            self.machine.stubs.setdefault(name, stub)


def _percpu(machine: Machine, _arguments: tuple[int, ...]) -> int:
    """Room for a per-CPU variable: what is added to the processor's base gives its place."""
    return machine.memory.allocate(4096) - machine.percpu & (1 << 64) - 1


def _find_bit(machine: Machine, address: int, size: int, start: int) -> int:
    """lib/find_bit.c: the number of the first set bit of `size` bits, from `start` on; `size` where there is none."""
    size = min(size & 0xFFFF_FFFF, 1 << 16)
    words = bytes(machine.memory.read(address, -(-size // 64) * 8))
    bits = (int.from_bytes(words, "little") & (1 << size) - 1) >> start if start < size else 0
    return start + (bits & -bits).bit_length() - 1 if bits else size
