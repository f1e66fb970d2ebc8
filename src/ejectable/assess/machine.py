# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `check`: which devices of this machine can be taken away, by which operation, without harm?

The machine's word follows from its devices first, because a defect that no device can reach crashes nothing:

- one operation on one device that meets a defect      → affected
- else one for which that could not be decided        → unknown
- else not every device could be seen                 → the kernel's word, and unknown where that is affected
- else (every device is safe, or there is none)       → the kernel's word where it is a good one, not_affected where
  the kernel is affected or unknown: the faulty code is not in the path of any device that is there *now*. The
  kernel's own finding still says `affected`, and a note says what would change the answer.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ejectable import host
from ejectable.advisories.exposure import expose
from ejectable.assess.kernels import status_of
from ejectable.assess.running_kernel import RunningKernel
from ejectable.assess.steps import next_steps
from ejectable.assess.summary import exposed_to, summary
from ejectable.model import SAFE, Assessment, Device, Doubt, Effect, Finding, KernelReport, Outcome, Status, earned

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["assess"]

MOST_DOUBTS = 3  # in the notes; the document has all of them


def assess(facts: host.Facts, running_kernel: RunningKernel, advisories: Mapping[str, "Advisory"]) -> Assessment:
    """What the facts of a machine and the findings of its kernel add up to."""
    report = running_kernel.report
    devices = None if facts.devices is None else _concerned(facts.devices, running_kernel, advisories)
    status = _status(devices, facts.doubts, report)
    outcome = _outcome(facts, status, devices or ())
    return Assessment(
        status=status,
        summary=summary(status, devices, report, outcome, facts, tuple(advisories)),
        next_steps=next_steps(facts, running_kernel, status, devices or (), outcome, advisories=advisories),
        host=facts.host,
        kernel=report,
        devices=devices or (),
        outcome=outcome,
        notes=_notes(facts, running_kernel, status),
        doubts=_doubts(facts),
    )


def _doubts(facts: host.Facts) -> tuple[Doubt, ...]:
    """What was not seen of the machine: of the list of its devices, and of the kernel that runs."""
    return (*facts.doubts, *(facts.running.doubts if facts.running else ()))


def _concerned(
    devices: Sequence[Device], running_kernel: RunningKernel, advisories: Mapping[str, "Advisory"]
) -> tuple[Device, ...]:
    """Every virtio device, and of other buses those that an advisory has something to say of."""
    found = (_exposed(device, running_kernel, advisories) for device in devices)
    return tuple(device for device in found if device is not None)


def _exposed(device: Device, running_kernel: RunningKernel, advisories: Mapping[str, "Advisory"]) -> Device | None:
    """The device with the worst that any advisory says of unplugging it; `None`: of another bus, and none does."""
    report = running_kernel.report
    findings = {finding.advisory: finding for finding in report.findings} if report else {}
    for name, addresses in running_kernel.repaired.items():
        finding = findings.get(name)
        if finding is not None and finding.status is Status.AFFECTED and device.address in addresses:
            findings[name] = msgspec.structs.replace(finding, status=Status.MITIGATED)
    said = [advisory.exposures(device, findings.get(name, _nothing(name))) for name, advisory in advisories.items()]
    told = [one for one in said if one is not None]
    if not told and device.bus != "virtio":
        return None
    return expose(device, told) if advisories else device


def _nothing(name: str) -> Finding:
    """What is said of a kernel whose code nobody could read."""
    return Finding(name, Status.UNKNOWN, None, "The code of the kernel in use could not be read.", (), conflict=False)


def _status(devices: Sequence[Device] | None, doubts: Sequence[Doubt], report: KernelReport | None) -> Status:
    word = status_of(report) if report else Status.UNKNOWN
    for word_of_exposure in (Status.AFFECTED, Status.UNKNOWN):
        if exposed_to(devices or (), word_of_exposure):
            return word_of_exposure
    # A kernel that cannot crash needs no list of devices; of any other, one that is not listed may be the one.
    return word if word in SAFE else earned(Status.NOT_AFFECTED, doubts)


def _outcome(facts: host.Facts, status: Status, devices: Sequence[Device]) -> Outcome:
    policy = facts.policy
    met = {one.effect for one in exposed_to(devices, Status.AFFECTED)}
    if status in SAFE:
        effect = "none"
    elif status is Status.AFFECTED and not met & {Effect.OOPS, Effect.CORRUPTION}:
        effect = "hang" if Effect.HANG in met else "none"
    elif status is Status.UNKNOWN or policy.panic_on_oops is None:
        effect = "unknown"
    else:
        effect = "panic" if policy.panic_on_oops else "hang"
    return Outcome(
        panic_on_oops=None if policy.panic_on_oops is None else (1 if policy.panic_on_oops else 0),
        effect=effect,  # type: ignore[arg-type]  # one of the four words, assigned above
        reboot_after_s=policy.panic,
        kdump=policy.kdump,
    )


def _notes(facts: host.Facts, running_kernel: RunningKernel, status: Status) -> tuple[str, ...]:
    notes = []
    word = status_of(running_kernel.report) if running_kernel.report else Status.UNKNOWN
    if status is Status.NOT_AFFECTED and word is Status.AFFECTED:
        notes.append("The kernel itself is affected: a device that meets the defect, plugged in later, would crash it.")
    elif status is Status.NOT_AFFECTED and word is Status.UNKNOWN:
        notes.append("The kernel's own code was not judged: this holds for the devices that are there now.")
    notes += [doubt.detail for doubt in _doubts(facts)[:MOST_DOUBTS]]
    if facts.container and not any("container" in note for note in running_kernel.notes):
        notes.append(f"This is a container ({facts.container}): the kernel and its devices are the host's.")
    running = facts.running
    if running and running.patched:
        patches = sorted({one.patch for one in running.patched})
        notes.append(f"Live patches are enabled: {', '.join(patches)}.")
    if running and running.lockdown == "confidentiality":
        notes.append("Kernel lockdown is at `confidentiality`: even root cannot read the code in memory.")
    notes += facts.live_repair.sentences()
    notes += running_kernel.notes
    if not facts.superuser:
        more = ["the code as it runs, live patches included (/proc/kcore)"] if _kcore_helps(facts) else []
        more += running_kernel.refused[:2]
        if more:
            notes.append(f"Root would see more: {', and '.join(more)}.")
    return tuple(dict.fromkeys(notes))


def _kcore_helps(facts: host.Facts) -> bool:
    """Whether the memory of the running kernel is there, and would be readable for root."""
    running = facts.running
    return facts.live and running is not None and running.has_memory and running.lockdown != "confidentiality"
