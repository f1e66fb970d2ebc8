# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-26698: a Hyper-V NIC is removed before all of its channels are open."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, meets, race, spared
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding, Operation

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "NetvscNapiHang"]


class NetvscNapiHang(Advisory):
    """netvsc_device_remove() disables the polling of channels that was never enabled."""

    id = "CVE-2024-26698"
    title = "removing a Hyper-V NIC whose channels are not all open hangs in napi_disable()"
    code = CodeUnder(
        functions=("netvsc_device_remove",), module="hv_netvsc", option="CONFIG_HYPERV_NET", menus=("CONFIG_HYPERV",)
    )
    proven = False
    operations = race(Effect.HANG, *UNPLUG, Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD)
    remedies = (
        *USUAL,
        Workaround(
            "all-queues-up",
            "Wait until all queues of the interface are up before it is detached.",
            ("ethtool --show-channels {node}",),
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Remove a NIC with two channels, one of them open."""
        from ejectable.advisories.netvsc_napi_hang.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A synthetic NIC of Hyper-V."""
        del finding
        if device.bus != "vmbus" or device.kind != "nic":
            return None
        if device.driver is None:
            return spared("no driver is bound")
        return meets("a synthetic NIC of Hyper-V", "soon after it came up, its removal may never end")

    @property
    def signature(self) -> Signature:
        """A task that waits in napi_disable() under the removal."""
        return Signature(
            kinds=("hung-task", "soft-lockup"),
            at=r"napi_disable|napi_disable_locked|msleep|usleep_range\w{0,20}|schedule_timeout|netvsc_device_remove",
            needs=("netvsc_device_remove", r"rndis_filter_device_remove|netvsc_\w{1,40}"),
            told="the removal of the NIC waits for polling to end that never began",
        )


ADVISORY = NetvscNapiHang()
