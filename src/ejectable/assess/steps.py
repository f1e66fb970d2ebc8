# SPDX-License-Identifier: GPL-2.0-or-later
"""What to do about a machine's answer, in order."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.assess.kernels import status_of
from ejectable.assess.summary import ACTS, exposed_to, met_by, nouns
from ejectable.model import SAFE, UNPLUG, Device, KernelReport, Outcome, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory
    from ejectable.assess.running_kernel import RunningKernel

__all__ = ["next_steps"]


def next_steps(
    facts: host.Facts,
    running_kernel: "RunningKernel",
    status: Status,
    devices: Sequence[Device],
    outcome: Outcome,
    *,
    advisories: Mapping[str, "Advisory"],
) -> tuple[str, ...]:
    """The steps, the most urgent first; each is a sentence that can be followed as it stands."""
    mend = ("Run `sudo ejectable fix live --apply` before the next kernel is installed: it mends what DKMS is told.",)
    steps = _by_status(facts, running_kernel, status, devices, outcome, advisories=advisories)
    return (*steps, *(mend if facts.live_repair.faulty_dkms else ()))


def _by_status(
    facts: host.Facts,
    running_kernel: "RunningKernel",
    status: Status,
    devices: Sequence[Device],
    outcome: Outcome,
    *,
    advisories: Mapping[str, "Advisory"],
) -> tuple[str, ...]:
    if status is Status.AFFECTED:
        return _affected(facts, running_kernel, devices, outcome, advisories)
    if status is Status.UNKNOWN:
        return _unknown(facts, running_kernel)
    word = status_of(running_kernel.report) if running_kernel.report else Status.UNKNOWN
    waiting = running_kernel.on_disk
    if word is Status.AFFECTED:
        if waiting and status_of(waiting) in SAFE:
            return (_reboot("Reboot when convenient", running_kernel, waiting),)
        return ("Upgrade the kernel when convenient, and run `ejectable check` again: see `ejectable fix`.",)
    if status is Status.MITIGATED:
        return ("Upgrade the kernel before the next reboot: the repair lives in memory only.",)
    if waiting and status_of(waiting) is Status.AFFECTED:
        may = "boots" if running_kernel.certain else "may boot"
        return (f"Before you reboot: {waiting.path} {may} next and has the defect; see `ejectable fix`.",)
    return ()


def _reboot(what: str, running_kernel: "RunningKernel", waiting: KernelReport) -> str:
    """Into the kernel that boots next; where that is not certain, the person has to see to it."""
    if running_kernel.certain or waiting.release is None:
        return f"{what}: {waiting.path} is installed and does not have the defect."
    return f"{what} into {waiting.release}: it is installed and does not have the defect."


def _affected(
    facts: host.Facts,
    running_kernel: "RunningKernel",
    devices: Sequence[Device],
    outcome: Outcome,
    advisories: Mapping[str, "Advisory"],
) -> tuple[str, ...]:
    steps = []
    hit = [device for device in devices if device.unplug == "would_oops"]
    if hit:
        names = ", ".join(device.nodes[0] if device.nodes else device.name for device in hit[:4])
        if len(hit) > 4:
            names += f" and {len(hit) - 4} more"
        steps.append(f"Do not unplug {names} while this machine runs; detach a device while it is stopped.")
    met = dict.fromkeys(one.advisory for one in exposed_to(devices, Status.AFFECTED))
    steps += [step for name in met for step in _of(advisories[name], facts, devices)]
    if running_kernel.on_disk and status_of(running_kernel.on_disk) in SAFE:
        steps.append(_reboot("Reboot", running_kernel, running_kernel.on_disk))
    steps.append("Run `ejectable fix`: it says which kernel has the fix, and what else helps here.")
    if outcome.panic_on_oops == 0:
        steps.append(
            "Until then `sysctl kernel.panic_on_oops=1` turns a machine that limps on and may corrupt data into one "
            "that restarts."
        )
    return tuple(steps)


def _of(advisory: "Advisory", facts: host.Facts, devices: Sequence[Device]) -> list[str]:
    """What an advisory itself says that can be done here, its first workaround, and what it only meets elsewhere."""
    steps = list(advisory.steps(facts))
    first = next((one for one in advisory.remedies if not isinstance(one, str)), None)
    if first is not None:
        steps.append(f"{first.why} ({advisory.id}: `ejectable fix {first.name}`.)")
    found = [one for one in exposed_to(devices, Status.AFFECTED) if one.advisory == advisory.id]
    if not steps and found and found[0].operation not in UNPLUG:
        act = ACTS[found[0].operation].format(nouns(met_by(devices, found[0])))
        steps.append(f"{act} has to be avoided while it has this kernel ({advisory.id}).")
    return steps


def _unknown(facts: host.Facts, running_kernel: "RunningKernel") -> tuple[str, ...]:
    steps = []
    if facts.container:
        steps.append("Run `ejectable check` on the host: the kernel and its devices are the host's.")
    elif not facts.superuser and (facts.live or running_kernel.refused):
        steps.append("Run it as root: `sudo ejectable check`.")
    if running_kernel.on_disk and status_of(running_kernel.on_disk) in SAFE:
        steps.append(_reboot("Reboot", running_kernel, running_kernel.on_disk))
    elif running_kernel.report is None and not steps:
        steps.append("Get the package of the running kernel and judge it: `ejectable kernel PACKAGE`.")
    steps.append("Until it is decided, unplug no device while this machine runs.")
    return tuple(steps)
