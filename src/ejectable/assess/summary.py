# SPDX-License-Identifier: GPL-2.0-or-later
"""The first line of `check`: the worst that can happen to a machine, and in what words operations are spoken of."""

from collections.abc import Mapping, Sequence

from ejectable import host
from ejectable.assess.kernels import status_of
from ejectable.model import UNPLUG, Device, Effect, Exposure, KernelReport, Operation, Outcome, Status

__all__ = ["ACTS", "by_weight", "exposed_to", "met_by", "nouns", "summary"]

# What is done to {}: in a sentence that begins with it.
ACTS: Mapping[Operation, str] = {
    **dict.fromkeys(UNPLUG, "Unplugging {}"),
    Operation.SURPRISE_REMOVAL: "Pulling {} out",
    Operation.SYSFS_REMOVE: "Removing {} in sysfs",
    Operation.DRIVER_UNBIND: "Unbinding the driver of {}",
    Operation.MODULE_UNLOAD: "Unloading the driver of {}",
    Operation.SUSPEND: "Suspending with {}",
    Operation.SHUTDOWN: "Shutting down with {}",
    Operation.RESET: "Resetting {}",
    Operation.SRIOV_DISABLE: "Taking the virtual functions from {}",
}
EFFECTS = tuple(Effect)
HARM = {
    Effect.CORRUPTION: "corrupt memory",
    Effect.HANG: "hang",
    Effect.LEAK: "leak memory",
    Effect.WARNING: "make the kernel warn",
}


def by_weight(one: Exposure) -> tuple[int, int, int, int]:
    """A key that sorts the worst exposure first: affected, certain, by its effect, an unplug before the rest."""
    words = (Status.AFFECTED, Status.UNKNOWN)
    rank = words.index(one.status) if one.status in words else len(words)
    return rank, one.likelihood == "race", EFFECTS.index(one.effect), list(Operation).index(one.operation)


def exposed_to(devices: Sequence[Device], status: Status) -> list[Exposure]:
    """The exposures of this word, the worst first."""
    return sorted((one for device in devices for one in device.exposures if one.status is status), key=by_weight)


def met_by(devices: Sequence[Device], like: Exposure) -> list[Device]:
    """The devices on which the same operation meets the same defect, with the same word."""

    def same(one: Exposure) -> bool:
        return (one.advisory, one.operation, one.status) == (like.advisory, like.operation, like.status)

    return [device for device in devices if any(map(same, device.exposures))]


def nouns(devices: Sequence[Device]) -> str:
    """Devices as a person calls them: `vdb`, `virtio3 (balloon)`, `eth0 and vdb`."""
    names = [device.nodes[0] if device.nodes else f"{device.name} ({device.kind})" for device in devices]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summary(  # noqa: PLR0917  (called once)
    status: Status,
    devices: Sequence[Device] | None,
    report: KernelReport | None,
    outcome: Outcome,
    facts: host.Facts,
    ids: Sequence[str],
) -> str:
    """One line for a person."""
    kernel = (report.release if report else facts.host.kernel_release) or "this kernel"
    names = ids[0] if len(ids) == 1 else f"{len(ids)} known defects"
    if status is Status.AFFECTED:
        return _affected(devices or (), outcome)
    if status is Status.UNKNOWN:
        open_ones = exposed_to(devices or (), Status.UNKNOWN)
        if not open_ones:
            return _unseen(devices, report, kernel, names)
        acts = ACTS[open_ones[0].operation].format(nouns(met_by(devices or (), open_ones[0])))
        which = dict.fromkeys(one.advisory for one in open_ones)
        about = next(iter(which)) if len(which) == 1 else f"{len(which)} of {names}"
        return f"What {acts[0].lower()}{acts[1:]} does could not be decided ({about})."
    if status is Status.MITIGATED:
        return f"Kernel {kernel} carries the defect, but it is repaired while it runs ({names})."
    if status is Status.FIXED:
        return f"Kernel {kernel} has the fix ({names})."
    word = status_of(report) if report else Status.UNKNOWN
    if word is Status.NOT_AFFECTED:
        return f"Kernel {kernel} does not have the faulty code ({names})."
    if not devices:
        return f"This machine has no device that is known here ({names})."
    if len(devices) == 1:
        return f"Its only device, {nouns(devices)}, meets no defect of its kernel ({names})."
    return f"None of its {len(devices)} devices meets a defect of its kernel ({names})."


def _affected(devices: Sequence[Device], outcome: Outcome) -> str:
    found = exposed_to(devices, Status.AFFECTED)
    worst = found[0]
    acts = ACTS[worst.operation].format(nouns(met_by(devices, worst)))
    would = "may" if worst.likelihood == "race" else "would"
    harm = HARM.get(worst.effect)
    if harm is None:
        harm = {
            "panic": "panic this machine",
            "hang": "Oops, and this machine would limp on",  # or hang, where a lock is held that others want
        }.get(outcome.effect, "crash this machine")
    line = f"{acts} {would} {harm} ({worst.advisory})."
    others = len({one.advisory for one in found} - {worst.advisory})
    if others:
        line += f" {others} more defect{'s are' if others > 1 else ' is'} met by devices here."
    return line


def _unseen(devices: Sequence[Device] | None, report: KernelReport | None, kernel: str, names: str) -> str:
    if report and status_of(report) is Status.AFFECTED:
        bad = [one.advisory for one in report.findings if one.status is Status.AFFECTED]
        about = bad[0] if len(bad) == 1 else f"{len(bad)} of {names}"
        return f"Kernel {kernel} has the defect; whether a device here meets it could not be seen ({about})."
    if devices:
        return f"Not all the devices of this machine could be seen ({names})."
    return f"The devices of this machine could not be seen ({names})."
