# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `ejectable check`: devices, the operations that take them away, and what each does to the machine."""

from collections.abc import Sequence

from ejectable.assess.summary import by_weight, exposed_to, nouns
from ejectable.model import EJECT, SAFE, Device, Effect, Exposure, Operation, Status
from ejectable.report.text import columns, paint, wrap

__all__ = ["defects_met", "table_of"]

ORDER = ("would_oops", "unknown", "safe")
UNPLUGGED = {"would_oops": "would Oops", "safe": "safe", "unknown": "unknown"}
GROUPS: tuple[tuple[str, tuple[Operation, ...]], ...] = (
    ("Pull out", (Operation.SURPRISE_REMOVAL,)),
    ("Unbind", (Operation.DRIVER_UNBIND, Operation.MODULE_UNLOAD)),
    ("Suspend", (Operation.SUSPEND,)),
    ("Shutdown", (Operation.SHUTDOWN,)),
    ("Reset", (Operation.RESET,)),
    ("SR-IOV off", (Operation.SRIOV_DISABLE,)),
)
EFFECTS = {
    Effect.CORRUPTION: "corrupt",
    Effect.OOPS: "Oops",
    Effect.HANG: "hang",
    Effect.LEAK: "leak",
    Effect.WARNING: "warn",
}


def table_of(devices: tuple[Device, ...], *, colour: bool, width: int) -> list[str]:
    """Devices and what each operation on them does; one column for all where all of them do the same."""
    if not devices:
        return []
    ordered = sorted(devices, key=lambda device: (ORDER.index(_worst_word(device)), ORDER.index(device.unplug)))
    groups = [(title, operations) for title, operations in GROUPS if _met(ordered, operations)]
    if all(_cell(device, operations) == _cell(device, EJECT) for device in ordered for _, operations in groups):
        rows: list[tuple[str, ...]] = [("Device", "Kind", "Nodes", "Address", "Driven", "Hotplug", "If unplugged")]
        rows += [
            (
                device.name,
                device.kind,
                _short(", ".join(device.nodes) or "-", 14),
                device.address or device.transport,
                device.mode if device.transport == "pci" else device.transport,
                {True: "yes", False: "no", None: "?"}[device.hotpluggable],
                _cell(device, EJECT),
            )
            for device in ordered
        ]
    else:
        rows = [("Device", "Kind", "Nodes", "Unplug", *(title for title, _ in groups))]
        rows += [
            (
                device.name,
                device.kind,
                _short(", ".join(device.nodes) or "-", 12),
                *(_cell(device, operations, short=True) for operations in (EJECT, *(some for _, some in groups))),
            )
            for device in ordered
        ]
        for _ in range(2):  # without nodes, then without kinds, if it is too wide
            if max(map(len, columns(rows))) > width:
                rows = [(*row[: -len(groups) - 2], *row[-len(groups) - 1 :]) for row in rows]
    lines = columns(rows)
    return [
        lines[0],
        *(_painted(line, device, colour=colour) for line, device in zip(lines[1:], ordered, strict=True)),
    ]


def _met(devices: Sequence[Device], operations: Sequence[Operation]) -> bool:
    """Whether any device meets something by one of these operations."""
    return any(one.operation in operations and one.status not in SAFE for device in devices for one in device.exposures)


def _cell(device: Device, operations: Sequence[Operation], *, short: bool = False) -> str:
    """The worst that one of these operations does to the machine."""
    found = [one for one in device.exposures if one.operation in operations and one.status not in SAFE]
    if not found:
        return device.unplug if operations == EJECT and device.unplug != "would_oops" else "safe"
    worst = min(found, key=by_weight)
    if worst.status is Status.UNKNOWN:
        return "unknown"
    would = "may " if worst.likelihood == "race" else "" if short else "would "
    return f"{would}{EFFECTS[worst.effect]}"


def _worst_word(device: Device) -> str:
    """`would_oops`, `unknown` or `safe`, whatever the operation."""
    words = {one.status for one in device.exposures}
    return "would_oops" if Status.AFFECTED in words else "unknown" if Status.UNKNOWN in words else device.unplug


def _painted(line: str, device: Device, *, colour: bool) -> str:
    head = len(line) - len(line.lstrip()) + len(device.name)
    word = _worst_word(device)
    if line.endswith(UNPLUGGED[word]):
        return line.removesuffix(UNPLUGGED[word]) + paint(UNPLUGGED[word], word, colour=colour)
    return "  " + paint(line[2:head], word, colour=colour) + line[head:]


def defects_met(devices: Sequence[Device], *, width: int) -> list[str]:
    """Each defect that a device meets, a line each, where there is more than one."""
    found: dict[str, Exposure] = {}
    for one in exposed_to(devices, Status.AFFECTED):
        found.setdefault(one.advisory, one)
    if len(found) < 2:
        return []
    lines = []
    for name, one in found.items():
        who = [device for device in devices if any(e.advisory == name and e.status is Status.AFFECTED
                                                   for e in device.exposures)]  # fmt: skip
        text = f"{name}: {nouns(who)}: {one.reason}"
        first = wrap(text, width=width, first="  ")
        lines.append(first[0] if len(first) == 1 else f"{first[0][: width - 4].rstrip()} ...")
    return ["", *lines]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
