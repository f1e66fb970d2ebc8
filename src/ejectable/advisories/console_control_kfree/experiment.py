# SPDX-License-Identifier: GPL-2.0-or-later
"""virtcons_remove() run on a console with one buffer left in one queue: in an input queue, or in the control queue.

What lies in the control queue is no buffer, but a part of the device itself.
"""

from ejectable.experiment import Bench, Observation, Result, answers, calls, ends, freed_inside, state
from ejectable.kernel.machine import Outcome

__all__ = ["experiment"]

FUNCTION = "virtcons_remove"
MULTIPORT = 1  # include/uapi/linux/virtio_console.h
DETACH = "virtqueue_detach_unused_buf"


def experiment(bench: Bench) -> Result:
    """Whether the control message that was not taken yet is freed like a buffer."""
    control_message, freed = _remove(bench, control=True)
    buffer, buffer_freed = _remove(bench, control=False)
    taken = calls(control_message, DETACH)
    return bench.decide(
        affected=freed,
        fixed=ends(control_message) & taken & ~freed,
        control=ends(buffer) & buffer_freed,
    )


def _remove(bench: Bench, *, control: bool) -> tuple[Outcome, Observation]:
    """The run, and whether what was left in the queue was freed in it: in its middle, for the control queue."""
    scene = bench.scene(follow=("remove_vqs", "free_buf", "flush_bufs"), free=True)
    console = scene.new("virtio_device", config=scene.operations("virtio_config_ops"))
    ports, queue = scene.new("ports_device", vdev=console), scene.new("virtqueue", vdev=console)
    console.set(priv=ports)
    console.sub("vqs").append(queue.sub("list"))
    for features in ("features_array", "features"):  # include/linux/virtio.h: an array since v6.16
        if console.has(features):
            scene.machine.memory.write(int(console.sub(features)), (1 << MULTIPORT).to_bytes(8, "little"))
            break
    for name in ("list", "ports"):
        ports.sub(name).init()
    left = ports.sub("cpkt") if control else scene.new("port_buffer")
    if control:
        ports.set(c_ovq=queue)
    scene.machine.stubs[DETACH] = answers(int(left))
    outcome = scene.run(FUNCTION, console)
    if control:
        return outcome, freed_inside(scene, outcome)
    grave = scene.grave_of(int(left))
    return outcome, state(outcome, "the buffer of an input queue was freed", grave is not None)
