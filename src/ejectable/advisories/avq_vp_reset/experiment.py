# SPDX-License-Identifier: GPL-2.0-or-later
"""The modern vp_reset() run on a device whose admin queue stands in admin_vq.info alone, as vp_find_vqs() leaves it."""

from ejectable.experiment import Bench, Result, Scene, calls, ends, reads_null
from ejectable.kernel.machine import Object, Outcome

__all__ = ["experiment"]

# Legacy and modern devices each have a virtio_pci_config_ops; this table is the modern one's alone.
TABLE, STRUCT = "virtio_pci_config_nodev_ops", "virtio_config_ops"
DEVICE, INFO = "virtio_pci_device", "admin_vq.info"
CLEANUP = "vp_modern_avq_cleanup"
ADMIN_VQ = 41  # include/uapi/linux/virtio_config.h
DETACH = "virtqueue_detach_unused_buf"


def experiment(bench: Bench) -> Result:
    """Whether the reset looks for the admin queue where it is not."""
    types = bench.scene().machine.types
    info = types.member(DEVICE, INFO)
    if info is None:
        if types.struct(DEVICE) is None:
            return bench.unknown(f"there is no struct {DEVICE} to look for an admin queue in")
        return bench.not_there("this kernel knows no admin queue")
    pointer = info.size == 8  # since v6.11; before, the record is a part of the device, and nothing cleans it up
    with_queue, without = _reset(bench, pointer=pointer, queue=True), _reset(bench, pointer=pointer, queue=False)
    cleaned = calls(with_queue, DETACH)
    return bench.decide(
        affected=reads_null(with_queue),
        fixed=ends(with_queue) & (cleaned if pointer else cleaned | ~cleaned),
        control=ends(without) & ~calls(without, DETACH),
        absent=not pointer,
    )


def _reset(bench: Bench, *, pointer: bool, queue: bool) -> Outcome:
    scene = bench.scene(follow=("vp_modern_avq_*",))
    device = scene.new(DEVICE, pci_dev=scene.new("pci_dev"), vqs=scene.pointers(0, 0, 0))
    avq = scene.new("virtqueue", vdev=device.sub("vdev"))
    if pointer:
        device.sub("admin_vq").set(info=scene.new("virtio_pci_vq_info", vq=avq))
    else:
        device.sub(INFO).set(vq=avq)
    if queue:
        _negotiate(scene, device, ADMIN_VQ)
    return scene.run(scene.target(TABLE, STRUCT, "reset"), device.sub("vdev"))


def _negotiate(scene: Scene, device: Object, feature: int) -> None:
    # include/linux/virtio.h: one number until v6.15, then an array that shares its place.
    scene.machine.memory.write(int(device.sub("vdev.features")), (1 << feature).to_bytes(8, "little"))
