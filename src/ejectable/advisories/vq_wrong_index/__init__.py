# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2026-64457: removing a virtio PCI device that leaves a queue out reads a null pointer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.scenario import Scenario
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Evidence, EvidenceKind, Finding, Operation, Status

if TYPE_CHECKING:
    from ejectable.advisories.live_part import LivePart
    from ejectable.experiment import Bench, Result
    from ejectable.kernel.program import Program

__all__ = ["ADVISORY", "VqWrongIndex"]

# drivers/virtio/virtio_balloon.c, init_vqs(): which feature gives which of the queues behind the first two.
STATS, HINTING, REPORTING = 1, 3, 5
SHORTEST = 6


class VqWrongIndex(Advisory):
    """Records stand at positions in the driver's list, and are looked for by the queues' numbers."""

    id = "CVE-2026-64457"
    title = "removing a virtio device that leaves a queue out reads a null pointer in vp_del_vqs()"
    proven = False
    code = CodeUnder(
        functions=("vp_find_vqs",),
        module="virtio_pci",
        option="CONFIG_VIRTIO_PCI",
        menus=("CONFIG_VIRTIO_MENU", "CONFIG_PCI"),
        entry="virtio_pci_probe",
    )
    operations = always(Effect.OOPS, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD, Operation.SUSPEND)
    remedies = (
        *USUAL,
        Workaround(
            "no-reporting",
            "A balloon without free page reporting, or with free page hinting too, leaves no queue out.",
            ("qemu ... -device virtio-balloon-pci,free-page-reporting=off",),
            cost="the guest is stopped and started",
            where="host",
        ),
        Workaround(
            "no-balloon",
            "Keep the driver from binding at the next boot. Unbinding it now is the crash.",
            ("echo blacklist virtio_balloon > /etc/modprobe.d/no-balloon.conf", "update-initramfs -u || dracut -f"),
            cost="a reboot; the host cannot take memory back",
        ),
    )
    scenario = Scenario(
        "a balloon that reports free pages", devices=("balloon",), properties={"free-page-reporting": "on"}
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Find three queues, one of them nameless, and delete them."""
        from ejectable.advisories.vq_wrong_index.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A balloon on PCI with a queue left out before its last one; all other drivers name each queue."""
        del finding
        if device.bus != "virtio" or device.kind not in ("balloon", "unknown"):
            return None
        if device.transport not in ("pci", "", "unknown"):
            return spared(f"on virtio-{device.transport} other code finds the queues")
        if device.driver is None:
            return spared("no driver is bound: it has no queues")
        features = device.attributes.get("features", "")
        if device.kind == "unknown" or len(features) < SHORTEST:
            return unsure("what it is, or which queues it has, could not be read")
        queues = "".join(features[bit] for bit in (STATS, HINTING, REPORTING))
        if "0" not in queues.rstrip("0"):
            return spared("it leaves no queue out before its last one")
        last = "free page reporting" if features[REPORTING] == "1" else "free page hinting"
        return meets(f"{last} is on, and a queue before it is left out", "vp_del_vqs() would take NULL for its record")

    @property
    def live_part(self) -> "LivePart":
        """The order that repairs the table in a kernel that runs."""
        from ejectable.advisories.vq_wrong_index.live_part import LIVE

        return LIVE

    def opinions(self, program: "Program", result: "Result") -> Sequence[Evidence]:
        """Whether the kernel has the type that came with the change."""
        del result
        if program.types is None or program.types.struct("virtio_pci_vq_info") is None:
            return ()
        if program.types.struct("virtqueue_info") is not None:
            return ()
        detail = "there is no struct virtqueue_info: records stand at the queues' numbers"
        return [Evidence(EvidenceKind.TYPES, Status.NOT_AFFECTED, detail)]

    @property
    def signature(self) -> Signature:
        """A read near NULL under vp_del_vqs(), while a balloon goes."""
        return Signature(
            kinds=("null-deref", "paging-fault"),
            at=r"vp_del_vqs?|__list_del_entry_valid(?:_or_report)?",
            needs=("vp_del_vqs", "remove_common|virtballoon_(?:remove|freeze)"),
            told="the record of a balloon's queue was looked for where it is not",
        )


ADVISORY = VqWrongIndex()
