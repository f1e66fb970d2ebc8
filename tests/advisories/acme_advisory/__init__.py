# SPDX-License-Identifier: GPL-2.0-or-later
"""ACME-2026-1: an advisory from outside, as short as one is: vp_del_vqs() walks the list of queues."""

from ejectable.advisories import Advisory, CodeUnder, Reach, Scenario, Signature, Workaround, always, meets
from ejectable.experiment import Bench, Result, ends, reads_null
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

__all__ = ["ADVISORY"]


class Deleted(Advisory):
    """A disk's queues are deleted."""

    id = "ACME-2026-1"
    title = "a disk's queues are deleted when it goes away"
    code = CodeUnder(functions=("vp_del_vqs",), module="virtio_pci", option="CONFIG_VIRTIO_PCI")
    operations = (*always(Effect.HANG, *UNPLUG), *always(Effect.WARNING, Operation.SHUTDOWN))
    signature = Signature(kinds=("hung-task",), at="vp_del_vqs", needs=("virtblk_remove",), told="it deletes queues")
    scenario = Scenario("a disk", devices=("disk",))
    remedies = ("upgrade", Workaround("keep-it", "A disk that stays has its queues.", ("echo keep {address}",)))

    def experiment(self, bench: Bench) -> Result:
        runs = []
        for empty in (True, False):
            scene = bench.scene(follow=("vp_*",))
            device = scene.new("virtio_pci_device", having=("vdev.vqs",))
            if empty:
                device.sub("vdev").sub("vqs").init()
            runs.append(scene.run("vp_del_vqs", device.vdev))
        with_list, without = runs
        seen = ends(with_list) & reads_null(without)
        return bench.decide(affected=seen, fixed=~seen)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        return meets("it is a disk", "its queues would be deleted") if device.kind == "disk" else None


ADVISORY = Deleted()
