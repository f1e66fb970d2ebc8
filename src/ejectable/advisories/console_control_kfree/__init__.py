# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2026-97995: removing a virtio console frees a part of the device as if it were a buffer."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "ConsoleControlFree"]

MULTIPORT = 1  # VIRTIO_CONSOLE_F_MULTIPORT


class ConsoleControlFree(Advisory):
    """remove_vqs() frees what the host has not taken, and in the control queue that is no buffer."""

    id = "CVE-2026-97995"
    title = "removing a virtio console frees the control message inside of the device"
    proven = False
    code = CodeUnder(functions=("virtcons_remove",), module="virtio_console", option="CONFIG_VIRTIO_CONSOLE")
    operations = race(Effect.CORRUPTION, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD, Operation.SUSPEND)
    remedies = (
        *USUAL,
        Workaround(
            "ports-closed",
            "A control message is sent when a port is opened or closed: close all before detaching.",
            ("systemctl stop qemu-guest-agent spice-vdagentd", "sleep 1"),
            cost="the host cannot talk to the guest's agent",
            avoids=tuple(one.operation for one in operations if one.operation is not Operation.SURPRISE_REMOVAL),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Remove a console with one buffer left, in either kind of queue."""
        from ejectable.advisories.console_control_kfree.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A virtio console with several ports: only that has a control queue."""
        del finding
        if device.bus != "virtio" or device.kind != "console":
            return None
        if device.driver is None:
            return spared("no driver is bound: it has no queues")
        features = device.attributes.get("features")
        if features is None:
            return unsure("its features could not be read")
        if features[MULTIPORT : MULTIPORT + 1] != "1":
            return spared("it has one port, and no control queue")
        return meets("it has a control queue", "a control message that waits there may be freed like a buffer")

    @property
    def signature(self) -> Signature:
        """A fault of the allocator, or its report, under remove_vqs()."""
        return Signature(
            kinds=("gpf", "paging-fault", "null-deref", "bug", "kasan", "warning"),
            at=r"free_buf|\w{0,40}kfree\w{0,40}|\w{0,40}slab\w{0,40}|kasan_report\w{0,40}|free_large_kmalloc"
            r"|dma_free_attrs|put_page|put_device",
            needs=("free_buf|remove_vqs", r"virtcons_(?:remove|freeze)|remove_vqs"),
            told="what was left in a console's queue was freed and is no buffer",
        )


ADVISORY = ConsoleControlFree()
