# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-53092: resetting a virtio PCI device with an admin queue reads a null pointer."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, spared, unsure
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "AvqVpReset"]

ADMIN_VQ = 41  # VIRTIO_F_ADMIN_VQ


class AvqVpReset(Advisory):
    """vp_reset() looks for the admin queue's record among those of the other queues."""

    id = "CVE-2024-53092"
    title = "resetting a virtio device with an admin queue reads a null pointer in vp_reset()"
    proven = False
    code = CodeUnder(
        functions=("vp_reset",),
        module="virtio_pci",
        option="CONFIG_VIRTIO_PCI",
        menus=("CONFIG_VIRTIO_MENU", "CONFIG_PCI"),
        entry="virtio_pci_probe",
        among="vp_find_vqs",
    )
    operations = always(
        Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD, Operation.SUSPEND, Operation.RESET
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Reset a device with an admin queue, and one without."""
        from ejectable.advisories.avq_vp_reset.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A modern virtio PCI device that has agreed on an admin queue."""
        del finding
        if device.bus != "virtio" or device.transport not in ("pci", "unknown", ""):
            return None
        features = device.attributes.get("features")
        if features is None:
            return unsure("its features could not be read")
        if features[ADMIN_VQ : ADMIN_VQ + 1] != "1":
            return spared("it has no admin queue")
        return meets("it has an admin queue", "vp_reset() would take a null pointer for its record")

    @property
    def signature(self) -> Signature:
        """The fault in vp_reset(), or in the cleanup that it calls."""
        return Signature(
            kinds=("null-deref", "paging-fault", "gpf"),
            at="vp_reset|vp_modern_avq_cleanup",
            needs=(
                r"virtio_dev_remove|virtio_reset_device|virtio_device_\w{1,40}|virtio_dev_shutdown|\w{1,40}_remove",
            ),
            told="vp_reset() looked for the admin queue where it is not",
        )


ADVISORY = AvqVpReset()
