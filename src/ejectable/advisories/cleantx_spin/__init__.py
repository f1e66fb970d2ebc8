# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio-net-cleantx-spin: virtio-net asks a broken queue for ever."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "BREAKS", "CleantxSpin"]

BREAKS = "breaks-queues-at-shutdown"  # the claim of evidence that each shutdown breaks all queues first
SURPRISE = race(Effect.HANG, Operation.SURPRISE_REMOVAL)


class CleantxSpin(Advisory):
    """virtnet_poll() loops until the queue says that there is no more, which a broken queue may never say."""

    id = "virtio-net-cleantx-spin"
    title = "virtio-net asks a broken queue for ever, and the machine does not go down"
    proven = False
    code = CodeUnder(
        functions=("virtnet_poll",), module="virtio_net", option="CONFIG_VIRTIO_NET", also=("virtio_ring", "virtio")
    )
    operations = (*SURPRISE, *race(Effect.HANG, Operation.SHUTDOWN))
    remedies = (
        *USUAL,
        Workaround(
            "interface-down",
            "An interface that is down does not poll: take it down last, just before the reboot.",
            ("ip link set {node} down",),
            cost="no network until the reboot",
            avoids=(Operation.SHUTDOWN,),
        ),
        Workaround(
            "watchdog",
            "A machine that spins is restarted: let a soft lockup panic, and a panic reboot.",
            ("sysctl -w kernel.softlockup_panic=1 kernel.panic=10",),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Let the driver poll, and ask a broken queue."""
        from ejectable.advisories.cleantx_spin.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A virtio NIC; at shutdown only under a kernel that then breaks all queues."""
        if device.bus != "virtio" or device.kind != "nic":
            return None
        if device.driver is None:
            return spared("no driver is bound: nobody polls it")
        breaks = any(evidence.claim == BREAKS for evidence in finding.evidence)
        then = "its poll may ask a broken queue for ever"
        return meets("a virtio NIC", then, operations=self.operations if breaks else SURPRISE)

    @property
    def signature(self) -> Signature:
        """A processor that is stuck in what virtnet_poll() calls in that loop."""
        return Signature(
            kinds=("soft-lockup", "hard-lockup", "rcu-stall"),
            at=r"virtnet_poll_cleantx|virtqueue_enable_cb_delayed\w{0,20}|virtqueue_disable_cb\w{0,20}"
            r"|(?:__)?free_old_xmit\w{0,20}",
            needs=("virtnet_poll|virtnet_poll_cleantx",),
            not_there=("virtnet_poll_tx",),
            told="virtnet_poll() went on asking a queue that was broken",
        )


ADVISORY = CleantxSpin()
