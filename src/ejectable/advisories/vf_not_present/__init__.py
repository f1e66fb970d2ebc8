# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2022-50636: a virtio device that is a virtual function is taken for one that is gone."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "VfNotPresent"]


class VfNotPresent(Advisory):
    """pci_device_is_present() reads the vendor id of a virtual function, which always reads ffff."""

    id = "CVE-2022-50636"
    title = "a virtio device that is a virtual function is taken for one that is gone, and its removal hangs"
    code = CodeUnder(functions=("pci_device_is_present",))
    proven = False
    operations = race(Effect.HANG, *UNPLUG, Operation.DRIVER_UNBIND)
    remedies = (
        *USUAL,
        Workaround("idle-first", "Without requests under way nothing has to be waited for: unmount the disk first."),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Ask whether a virtual function is there."""
        from ejectable.advisories.vf_not_present.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A virtio device whose PCI function is a virtual one."""
        del finding
        if device.bus != "virtio" or "virtfn" not in device.attributes:
            return None
        return meets("its PCI function is a virtual one", "its driver would take it for gone")

    @property
    def signature(self) -> Signature:
        """A task that waits for requests under the removal of a virtio disk."""
        return Signature(
            kinds=("hung-task",),
            at=r"blk_mq_freeze_queue\w{0,20}|del_gendisk|__del_gendisk|virtblk_remove",
            needs=("virtblk_remove", r"virtio_dev_remove", "sriov_disable|pci_disable_sriov|pci_iov_remove_virtfn"),
            told="the removal of a virtio disk on a virtual function waits for requests",
        )


ADVISORY = VfNotPresent()
