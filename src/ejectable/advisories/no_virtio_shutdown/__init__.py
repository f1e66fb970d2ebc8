# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2025-38064: virtio devices go on working while the machine goes down."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ejectable.advisories.advisory import Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.model import Device, Effect, Evidence, EvidenceKind, Finding, Operation, Status

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result
    from ejectable.kernel.program import Program

__all__ = ["ADVISORY", "NoVirtioShutdown"]

FUNCTION = "virtio_dev_shutdown"


class NoVirtioShutdown(Advisory):
    """The virtio bus has no shutdown: nothing resets its devices before a kexec or a reboot."""

    id = "CVE-2025-38064"
    title = "virtio devices are not reset when the machine goes down"
    proven = False
    code = CodeUnder(functions=("unregister_virtio_device",), module="virtio", option="CONFIG_VIRTIO")
    operations = race(Effect.HANG, Operation.SHUTDOWN)
    remedies = (
        "upgrade",
        Workaround(
            "unbind-first",
            "A device without a driver is quiet: unbind what is not needed any more before a kexec.",
            ("echo {name} > /sys/bus/virtio/drivers/{driver}/unbind",),
            cost="the device is gone until the next boot",
            avoids=(Operation.SHUTDOWN,),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Shut a device down, if the bus can."""
        from ejectable.advisories.no_virtio_shutdown.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """Any virtio device with a driver."""
        del finding
        if device.bus != "virtio":
            return None
        if device.driver is None:
            return spared("no driver uses it")
        return meets(f"{device.driver} uses it until the end", "nothing would reset it at shutdown or before a kexec")

    def opinions(self, program: "Program", result: "Result") -> Sequence[Evidence]:
        """Whether the function that came with the fix is there; it is only called through a pointer."""
        del result
        there = program.symbols.function(FUNCTION) is not None
        says = Status.FIXED if there else Status.AFFECTED
        detail = f"{FUNCTION}() is {'' if there else 'not '}there"
        return [Evidence(EvidenceKind.SYMBOLS, says, detail, (FUNCTION,))]


ADVISORY = NoVirtioShutdown()
