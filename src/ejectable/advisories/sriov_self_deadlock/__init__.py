# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2026-43147: a physical function with virtual functions is removed."""

from typing import TYPE_CHECKING

from ejectable.advisories.advisory import USUAL, Advisory
from ejectable.advisories.code import CodeUnder
from ejectable.advisories.exposure import Reach, always, meets, spared, unsure
from ejectable.advisories.remedy import Workaround
from ejectable.advisories.signature import Signature
from ejectable.model import UNPLUG, Device, Effect, Finding

if TYPE_CHECKING:
    from ejectable.experiment import Bench, Result

__all__ = ["ADVISORY", "SriovSelfDeadlock"]

LEAVES_ON = ("nvme",)  # seen in a guest


class SriovSelfDeadlock(Advisory):
    """sriov_disable() takes the lock that whoever removes a PCI device holds already."""

    id = "CVE-2026-43147"
    title = "removing a device with SR-IOV switched on hangs in sriov_disable()"
    code = CodeUnder(functions=("sriov_disable",), option="CONFIG_PCI_IOV", menus=("CONFIG_PCI",))
    proven = False
    operations = always(Effect.HANG, *UNPLUG)
    remedies = (
        *USUAL,
        Workaround(
            "vfs-first",
            "Switching SR-IOV off before the device is removed avoids the deadlock altogether.",
            ("echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs",),
            cost="the virtual functions are gone",
        ),
    )

    def experiment(self, bench: "Bench") -> "Result":
        """Switch SR-IOV off on a function with one virtual function."""
        from ejectable.advisories.sriov_self_deadlock.experiment import experiment

        return experiment(bench)

    def exposure(self, device: Device, finding: Finding) -> Reach | None:
        """A physical function with virtual functions, under a driver that switches them off when it goes."""
        del finding
        if device.bus != "pci" or "sriov_numvfs" not in device.attributes:
            return None
        enabled = device.attributes["sriov_numvfs"]
        if enabled == "0":
            return spared("it can have virtual functions, and none is switched on")
        if not enabled.isdigit():
            return unsure("how many virtual functions it has could not be read")
        if device.driver in LEAVES_ON:
            return spared(f"its driver {device.driver} leaves SR-IOV as it is when it is removed")
        if device.driver is None:
            return spared("no driver is bound that would switch SR-IOV off")
        return meets(f"SR-IOV is switched on ({enabled} virtual functions)", "the removal would wait for its own lock")

    @property
    def signature(self) -> Signature:
        """A task that removes a device and waits for the lock of removals."""
        return Signature(
            kinds=("hung-task",),
            at="pci_lock_rescan_remove|__mutex_lock|mutex_lock|sriov_disable|sriov_del_vfs",
            needs=(
                "sriov_disable|pci_disable_sriov|sriov_del_vfs",
                "pci_stop_\\w{1,40}|pci_device_remove|pci_remove_bus_device",
            ),
            told="the removal of a device waits in sriov_disable() for the lock that it holds itself",
        )


ADVISORY = SriovSelfDeadlock()
