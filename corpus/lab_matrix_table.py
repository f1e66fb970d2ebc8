# SPDX-License-Identifier: GPL-2.0-or-later
"""The page docs/lab-matrix.md: many runs as a table that shows what differs, and says what was not tried."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ejectable.lab.case import DEVICES, MODES, TRIGGERS
from ejectable.lab.matrix import Plan

if TYPE_CHECKING:
    from corpus.lab_matrix import Known, Subject

__all__ = ["page"]

COLUMNS = (("pc", True), ("q35", True), ("virt", True), ("pc", False), ("q35", False), ("virt", False))
Key = tuple[str, bool, str, str, str]  # machine, faulty, trigger, device, mode


def page(plans: "Mapping[Subject, Plan]", known: "Sequence[Known]") -> tuple[str, int]:
    """The text, and how many results contradict the claim."""
    reasons: dict[str, int] = {}
    cells = _skipped(plans, reasons) | _planned(plans, known)
    wrong = sum(not one.as_said for one in known)
    possible = sum(len(made.cases) for made in plans.values())
    odd = sum(one.warnings > 0 for one in known)
    kernels = sorted({subject.release for subject in plans})
    head = f"""<!-- Written by `make lab-matrix`: do not edit. -->
# What was tried in the lab

{len(known)} of {possible} possible runs, under emulation (QEMU, TCG). The kernels are Debian's ({", ".join(kernels)};
the one without `cloud` for `shpc`, which cloud kernels do not have), as they are (stock), and with a `virtio_pci.ko`
that has the callback of v6.8 put back (faulty).

Results that contradict the description of the defect: {wrong}. Every oops and panic that counts as expected was matched
to CVE-2024-42134 by the crash reader, from the console alone. Runs in which the kernel complained of something else as
well: {odd}.

A row stands for every device and every mode that it names. A cell tells the results of each of those, with
`panic_on_oops` 0 and 1, and with the device idle and under I/O: `oops 2, panic 2` are four runs. What contradicts the
description is **bold**; a number in brackets is a reason below; what is not counted was not tried yet.

| trigger | device | mode | {" | ".join(f"{machine}, {'faulty' if bad else 'stock'}" for machine, bad in COLUMNS)} |
|{"---|" * (3 + len(COLUMNS))}
"""
    tail = [
        "",
        "## What was not tried, and why",
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
        "",
    ]
    lines = [head + "\n".join(_rows(cells)), *tail]
    return "\n".join(lines), wrong


def _skipped(plans: "Mapping[Subject, Plan]", reasons: dict[str, int]) -> dict[Key, str]:
    cells: dict[Key, str] = {}
    for subject, made in plans.items():
        for skipped in made.skipped:
            case = skipped.case
            number = reasons.setdefault(skipped.reason, len(reasons) + 1)
            cells[case.machine, subject.faulty, case.trigger, case.device, case.mode] = f"({number})"
    return cells


def _planned(plans: "Mapping[Subject, Plan]", known: "Sequence[Known]") -> dict[Key, str]:
    """A cell for every combination that can be tried; empty where it was not yet."""
    found: dict[Key, Counter[str]] = {
        (case.machine, subject.faulty, case.trigger, case.device, case.mode): Counter()
        for subject, made in plans.items()
        for case in made.cases
    }
    for one in known:
        word = one.result if one.as_said else f"**{one.result}**"
        case = one.case
        found.setdefault((case.machine, one.faulty, case.trigger, case.device, case.mode), Counter())[word] += 1
    return {key: ", ".join(f"{word} {count}" for word, count in sorted(words.items())) for key, words in found.items()}


def _rows(cells: Mapping[Key, str]) -> list[str]:
    """Devices and modes with the same cells share a row."""
    lines = []
    for trigger in TRIGGERS:
        by_device: dict[str, dict[tuple[str, ...], list[str]]] = {}
        for device in DEVICES:
            alike: dict[tuple[str, ...], list[str]] = {}
            for mode in MODES:
                row = tuple(cells.get((machine, faulty, trigger, device, mode), "") for machine, faulty in COLUMNS)
                alike.setdefault(row, []).append(mode)
            by_device[device] = alike
        merged: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for device, alike in by_device.items():
            for row, modes in alike.items():
                merged.setdefault((row, ", ".join(modes)), []).append(device)
        for (row, modes_said), devices in merged.items():
            lines.append("| " + " | ".join((trigger, ", ".join(devices), modes_said, *row)) + " |")
    return lines
