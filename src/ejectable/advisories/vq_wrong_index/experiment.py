# SPDX-License-Identifier: GPL-2.0-or-later
"""vp_find_vqs() run for three queues of which the one in the middle has no name, then vp_del_vqs().

Where the records stand afterwards decides: by the queues' own numbers, or by their positions in the driver's list.
"""

from ejectable.experiment import Bench, Observation, Result, Scene, calls, ends, reads_null, state
from ejectable.kernel.machine import Machine, Object

__all__ = ["experiment"]

FIND, DELETE = "vp_find_vqs", "vp_del_vqs"
VECTORS = "pci_alloc_irq_vectors_affinity"
MASK = "alloc_cpumask_var_node"
NO_SPACE = -28
NAMES = (True, False, True)


def experiment(bench: Bench) -> Result:
    """Whether a record is looked for where it was put, with an interrupt for each queue and with one for all."""
    affected = fixed = control = None
    for vectors in (NO_SPACE, 5):
        hole, full = _Device(bench, vectors, NAMES), _Device(bench, vectors, (True, True, True))
        misplaced, placed = hole.records((True, False, True)), hole.records((True, True, False))
        one = misplaced & reads_null(hole.deleted)
        other = placed & ends(hole.deleted) & calls(hole.deleted, "del_vq", times=2)
        beside = full.records((True, True, True)) & ends(full.deleted) & calls(full.deleted, "del_vq", times=3)
        affected = one if affected is None else affected | one
        fixed = other if fixed is None else fixed & other
        control = beside if control is None else control & beside
    assert affected is not None
    assert fixed is not None
    # Before virtqueue_info, a record was put and looked for by the queue's number.
    return bench.decide(affected=affected, fixed=fixed, control=control, absent=not _has_entries(bench.scene()))


class _Device:
    """A device whose queues were found, and deleted again."""

    def __init__(self, bench: Bench, vectors: int, names: tuple[bool, ...]) -> None:
        self.scene = scene = bench.scene(follow=("vp_*",), stubs={VECTORS: vectors, MASK: 1})
        pci = scene.new("pci_dev", irq=11)
        if pci.has("pin"):
            pci.set(pin=1)
        self.device = device = scene.new("virtio_pci_device", pci_dev=pci)
        device.set(
            setup_vq=scene.callback("setup_vq", self._set_up),
            del_vq=scene.callback("del_vq"),
            config_vector=scene.callback("config_vector"),
        )
        for name in ("vdev.vqs", "virtqueues", "slow_virtqueues"):
            if device.has(name):
                device.sub(name).init()
        self.found = scene.run(FIND, device.sub("vdev"), len(names), scene.pointers(0, 0, 0), *self._wanted(names))
        self.as_asked = bool(device.msix_enabled) is (vectors > 0)
        table = device.vqs.__index__()
        self.table = tuple(bool(scene.word(table + 8 * number)) for number in range(len(names))) if table else ()
        self.deleted = scene.run(DELETE, device.sub("vdev"))

    def records(self, expected: tuple[bool, ...]) -> Observation:
        """Whether the records stand in these places of the device's table."""
        where = ", ".join(str(number) for number, there in enumerate(self.table) if there)
        words = f"of three queues, the second left out, the records stand at {where or 'no place'}"
        return state(self.found, words, self.found.exit == "returned" and self.as_asked and self.table == expected)

    def _wanted(self, names: tuple[bool, ...]) -> tuple[int | Object, ...]:
        scene = self.scene
        name, call = scene.text("queue"), scene.callback("callback")
        if _has_entries(scene):
            entries = scene.array("virtqueue_info", len(names))
            for entry, wanted in zip(entries, names, strict=True):
                if wanted:
                    entry.set(name=name, callback=call)
            return entries[0], 0
        callbacks, texts = ([value if wanted else 0 for wanted in names] for value in (call, name))
        return scene.pointers(*callbacks), scene.pointers(*texts), 0, 0

    def _set_up(self, _machine: Machine, arguments: tuple[int, ...]) -> int:
        """As setup_vq() of a modern device: a queue with its number, on the device's list."""
        queue = self.scene.new("virtqueue", index=arguments[2] & 0xFFFF, vdev=self.device.sub("vdev"))
        self.device.sub("vdev.vqs").append(queue.sub("list"))
        return int(queue)


def _has_entries(scene: Scene) -> bool:
    """Whether the driver's list is one of virtqueue_info (since v6.11), and not several of names and callbacks."""
    return scene.machine.types.struct("virtqueue_info") is not None
