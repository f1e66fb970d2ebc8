# SPDX-License-Identifier: GPL-2.0-or-later
"""Doubts added to the findings of a kernel: a safe word beside one becomes `unknown`, by `Finding.doubted`."""

from collections.abc import Callable, Sequence

import msgspec

from ejectable.model import Device, Doubt, DoubtKind, Finding, KernelReport, Status

__all__ = [
    "downgrade_doubted",
    "downgrade_refuted",
    "downgrade_unlocated",
    "downgrade_unproven",
]

NOT_REACHED = "vulnerable_code_not_in_execute_path"  # OpenVEX; here: it cannot drive a legacy device at all


def downgrade_doubted(report: KernelReport, doubts: Sequence[Doubt]) -> KernelReport:
    """The report with these doubts about all that it says."""
    return _each(report, lambda finding: finding.doubted(*doubts))


def downgrade_unproven(report: KernelReport, what: str) -> KernelReport:
    """The report of a file that has the right name, and nothing else that says it is what runs.

    An upgrade replaces the file of a release while the old code runs on: a safe word about the file is none about
    the machine. A bad one is a warning that stands.
    """

    def doubted(finding: Finding) -> Finding:
        detail = f"Nothing shows that this file is the same build as {what}. Of the file: {finding.reason}"
        return finding.doubted(Doubt(DoubtKind.IDENTITY, report.path, detail))

    return _each(report, doubted)


def downgrade_unlocated(report: KernelReport) -> KernelReport:
    """The report of an image whose virtio_pci is a module that was not found: its code was not read at all."""
    missing = Doubt(
        DoubtKind.MISSING,
        report.path,
        "The virtio_pci module that is loaded was not found on disk, so its code could not be read.",
    )

    def unlocated(finding: Finding) -> Finding:
        doubted = finding.doubted(missing)
        if doubted.status is Status.UNKNOWN:
            return msgspec.structs.replace(doubted, reason=missing.detail)
        return doubted

    return msgspec.structs.replace(_each(report, unlocated), virtio_pci=None)


def downgrade_refuted(report: KernelReport, devices: Sequence[Device]) -> KernelReport:
    """The report, unless a device refutes it: a kernel that cannot drive a legacy device does not drive one."""
    seen = next((device for device in devices if device.transport == "pci" and device.mode == "legacy"), None)
    if seen is None:
        return report

    def refuted(finding: Finding) -> Finding:
        if finding.justification != NOT_REACHED:
            return finding
        detail = f"{seen.name} is driven as legacy, which refutes what was read: {finding.reason}"
        return finding.doubted(Doubt(DoubtKind.CONTRADICTED, seen.address or seen.name, detail))

    return _each(report, refuted)


def _each(report: KernelReport, change: Callable[[Finding], Finding]) -> KernelReport:
    return msgspec.structs.replace(report, findings=tuple(map(change, report.findings)))
