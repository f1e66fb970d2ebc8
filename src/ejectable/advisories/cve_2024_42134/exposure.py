# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom it hits: virtio PCI devices that are *driven* as legacy, on a kernel that has the defect."""

import msgspec

from ejectable.model import SAFE, Device, Finding, Status

__all__ = ["expose"]

WHY_SAFE = {
    Status.FIXED: "its kernel tests the callback before it calls it",
    Status.NOT_AFFECTED: "its kernel does not have the faulty code",
    Status.MITIGATED: "the running kernel was repaired",
}


def expose(finding: Finding, device: Device) -> Device:
    """The device with `unplug` and `reason`: `would_oops`, `safe` or `unknown`."""
    unplug, reason = _judge(finding, device)
    return msgspec.structs.replace(device, unplug=unplug, reason=reason)


def _judge(finding: Finding, device: Device) -> tuple[str, str]:
    if device.transport != "pci":
        if device.transport in ("", "unknown"):
            return "unknown", "what it is attached to could not be told"
        return "safe", f"a virtio-{device.transport} device is not driven by virtio_pci, whose vp_del_vqs() is at fault"
    if device.mode == "modern":
        return "safe", "driven as a modern device: the modern probe sets the callback"
    if finding.status in SAFE:
        return "safe", WHY_SAFE[finding.status]
    if finding.status is Status.UNKNOWN:
        mode = "driven as a legacy device" if device.mode == "legacy" else "how it is driven could not be told"
        return "unknown", f"{mode}, and whether the kernel has the defect is not known"
    if device.mode != "legacy":
        return "unknown", "the kernel is affected, and how this device is driven could not be told"
    if device.driver is None:
        # Without a driver nobody set up queues, and vp_del_vqs() has none to walk; but a driver may come any time,
        # and whether one left queues behind cannot be seen from outside.
        return (
            "unknown",
            "driven as legacy on an affected kernel, but no driver is bound: it may have no queues to delete",
        )
    return "would_oops", "driven as a legacy device: vp_del_vqs() would call its null is_avq pointer"
