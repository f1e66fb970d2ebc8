# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the running kernel out of its memory, and what it adds to what was read on disk."""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from ejectable import host
from ejectable.assess.kernels import judge
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import EjectableError
from ejectable.intake.limits import Limits
from ejectable.model import Finding, KernelReport, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["doubted", "judged", "merged"]

KCORE = "/proc/kcore"


def judged(  # noqa: PLR0917  (called once, by in_use)
    root: host.Root,
    running: host.Running,
    advisories: Mapping[str, "Advisory"],
    limits: Limits,
    verdicts: Verdicts,
    notes: list[str],
) -> KernelReport | None:
    """What the advisories say of the code in memory; `None` where it may not be read. Adds to `notes` why not."""
    kcore, kallsyms = root.file(KCORE), root.file("/proc/kallsyms")
    if kcore is None or kallsyms is None:
        return None
    key = _key(root, running, advisories)
    if kept := verdicts.get(key):
        return kept
    from ejectable.kernel.memory import MemoryKernel

    try:
        kernel = MemoryKernel(
            kcore=kcore,
            kallsyms=kallsyms,
            btf_folder=root.outside(root.resolve("/sys/kernel/btf") or "/sys/kernel/btf"),
            release=running.release,
            banner=running.banner,
            build_id=running.build_id,
            patched=running.patched,
            limits=limits,
        )
        with closing(kernel):
            report = judge(kernel, advisories)
    except EjectableError as error:
        if root.live:
            notes.append(f"The code in memory could not be read: {error.message}")
        return None
    report = msgspec.structs.replace(report, source=f"{KCORE} (the code as it runs)", running=True)
    verdicts.put(key, report)
    return report


def merged(on_disk: KernelReport | None, in_memory: KernelReport | None) -> KernelReport | None:
    """One report of both. Memory is what runs, so it decides where it says anything.

    `mitigated`: affected on disk, repaired in the running kernel.
    """
    if on_disk is None or in_memory is None:
        return on_disk or in_memory
    memory = {finding.advisory: finding for finding in in_memory.findings}
    findings = tuple(_one(finding, memory.get(finding.advisory)) for finding in on_disk.findings)
    return msgspec.structs.replace(
        on_disk, findings=findings, source=f"{on_disk.source} and {in_memory.source}", running=True
    )


def doubted(report: KernelReport, patched: tuple[str, ...], in_memory: KernelReport | None) -> KernelReport:
    """The report of a file on disk, where live patches replace functions that its findings rest on.

    What replaces them is seen in memory only. Where that decided nothing, neither `affected` nor a good word can be
    said of the file.
    """
    names = {patch.rpartition("/")[2] for patch in patched}
    decided = {f.advisory for f in in_memory.findings if f.status is not Status.UNKNOWN} if in_memory else set()
    findings = []
    for finding in report.findings:
        hit = sorted(name for name in names if any(name in item.detail for item in finding.evidence))
        if hit and finding.advisory not in decided:
            finding = msgspec.structs.replace(  # noqa: PLW2901
                finding,
                status=Status.UNKNOWN,
                justification=None,
                reason=f"A live patch replaces {', '.join(hit)}, and what replaces it can be read by root only. On "
                f"disk: {finding.reason}",
            )
        findings.append(finding)
    return msgspec.structs.replace(report, findings=tuple(findings))


def _one(disk: Finding, memory: Finding | None) -> Finding:
    if memory is None or memory.status is Status.UNKNOWN:
        return disk
    evidence = tuple(msgspec.structs.replace(item, detail=f"in memory: {item.detail}") for item in memory.evidence)
    evidence += disk.evidence
    explanation = (*memory.explanation, *disk.explanation)
    if disk.status is Status.AFFECTED and memory.status in (Status.FIXED, Status.NOT_AFFECTED):
        return Finding(
            disk.advisory,
            Status.MITIGATED,
            None,
            f"The kernel on disk is affected, and its code in memory is not: it was patched live. {memory.reason}",
            evidence,
            conflict=False,
            explanation=explanation,
        )
    return Finding(
        disk.advisory,
        memory.status,
        memory.justification,
        memory.reason,
        evidence,
        conflict=memory.conflict or disk.conflict or disk.status not in (memory.status, Status.UNKNOWN),
        explanation=explanation,
    )


def _key(root: host.Root, running: host.Running, advisories: Mapping[str, "Advisory"]) -> tuple[str, ...]:
    """Memory is the same while it is the same boot, with the same modules, live patches and tracers of functions."""
    state = hashlib.sha256()
    for path in ("/proc/modules", "/proc/sys/kernel/tainted", "/sys/kernel/tracing/enabled_functions"):
        state.update(root.read(path, 4 << 20) or b"-")
    return (
        *sorted(advisories),
        KCORE,
        root.text("/proc/sys/kernel/random/boot_id", 64) or "",
        running.build_id or "",
        running.banner or "",
        *running.patched,
        state.hexdigest(),
    )
