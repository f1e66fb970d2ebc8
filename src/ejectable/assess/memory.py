# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the running kernel out of its memory, and what it adds to what was read on disk."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from ejectable import host
from ejectable.assess.kernels import judge
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import EjectableError, Missing
from ejectable.intake.limits import Limits
from ejectable.model import Device, Doubt, DoubtKind, Evidence, EvidenceKind, Finding, KernelReport, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory
    from ejectable.kernel.memory import MemoryKernel

__all__ = ["doubt_transitions", "downgrade_live_patched", "judged", "merged", "open_memory", "repaired"]

KCORE, KALLSYMS = "/proc/kcore", "/proc/kallsyms"


def judged(  # noqa: PLR0917  (called once, by running_kernel)
    root: host.Root,
    running: host.Running,
    advisories: Mapping[str, "Advisory"],
    limits: Limits,
    verdicts: Verdicts,
    notes: list[str],
) -> KernelReport | None:
    """What the advisories say of the code in memory; `None` where it may not be read. Adds to `notes` why not."""
    if root.file(KCORE) is None or root.file(KALLSYMS) is None:
        return None
    # Of a captured tree nothing tells whether its copy of the memory is still the one that was read.
    key = _key(root, running, advisories) if root.live else None
    if key and (kept := verdicts.get(key)):
        return kept
    try:
        with closing(open_memory(root, running, limits)) as kernel:
            report = judge(kernel, advisories)
    except EjectableError as error:
        # Who is not root may not, and need not be told why; as root, it is the kernel's lockdown or configuration.
        if root.live and not (isinstance(error.__cause__, PermissionError) and os.geteuid()):
            notes.append(f"The code in memory could not be read: {error.message}")
        return None
    report = msgspec.structs.replace(report, source=f"{KCORE} (the code as it runs)", running=True)
    if key:
        verdicts.put(key, report)
    return report


def open_memory(root: host.Root, running: host.Running, limits: Limits) -> "MemoryKernel":
    """The memory of the running kernel; close it. Raises an `EjectableError` where it may not be read."""
    from ejectable.kernel.memory import MemoryKernel

    kcore, kallsyms = root.file(KCORE), root.file(KALLSYMS)
    if kcore is None or kallsyms is None:
        raise Missing(f"There is no {KCORE if kcore is None else KALLSYMS} here.", hint="Is /proc mounted?")
    return MemoryKernel(
        kcore=kcore,
        kallsyms=kallsyms,
        btf_folder=root.outside(root.resolve("/sys/kernel/btf") or "/sys/kernel/btf"),
        release=running.release,
        banner=running.banner,
        build_id=running.build_id,
        patched=running.patched,
        limits=limits,
    )


def repaired(  # noqa: PLR0917  (called once, by running_kernel)
    root: host.Root,
    running: host.Running,
    report: KernelReport,
    devices: Sequence[Device] | None,
    advisories: Mapping[str, "Advisory"],
    limits: Limits,
    notes: list[str],
) -> tuple[KernelReport, tuple[str, ...]]:
    """The report, `mitigated` where a module guards each device that is there; and the addresses of those guarded.

    Never from the cache: devices come and go. Where the module is loaded and memory may not be read, nobody knows.
    """
    modules = root.text("/proc/modules", 4 << 20) or ""
    covered: tuple[str, ...] = ()
    findings = []
    for finding in report.findings:
        alive = _alive(advisories.get(finding.advisory))
        if finding.status is Status.AFFECTED and alive is not None and alive.loaded(modules):
            try:
                with closing(open_memory(root, running, limits)) as kernel:
                    found = alive.repairs(kernel, modules, running.module_build_id)
            except EjectableError as error:
                finding = _undecided(finding, alive.MODULE, error.message)  # noqa: PLW2901
            else:
                covered += found.repaired
                notes.append(f"The module {alive.MODULE} is loaded: {found.detail}.")
                wanted = {d.address for d in devices or () if d.transport == "pci" and d.mode != "modern"}
                if found.guarded and not found.bare and wanted <= set(found.repaired):
                    finding = _mitigated(finding, found.detail)  # noqa: PLW2901
        findings.append(finding)
    return msgspec.structs.replace(report, findings=tuple(findings)), covered


def _alive(advisory: "Advisory | None") -> Any:
    """The part of the advisory that knows how its devices are repaired; `None` where it has none."""
    try:
        return advisory.part("live") if advisory else None
    except ModuleNotFoundError:
        return None


def _undecided(finding: Finding, module: str, why: str) -> Finding:
    return msgspec.structs.replace(
        finding,
        status=Status.UNKNOWN,
        reason=f"The module {module} is loaded, and whether it repaired every device could not be seen: {why} Of the "
        f"kernel: {finding.reason}",
    )


def _mitigated(finding: Finding, detail: str) -> Finding:
    """The finding where every device that sysfs shows as legacy, or does not tell of, is guarded."""
    return msgspec.structs.replace(
        finding,
        status=Status.MITIGATED,
        reason=f"The kernel is affected, and it is repaired while it runs: {detail}.",
        evidence=(Evidence(EvidenceKind.EXECUTED, Status.MITIGATED, f"in memory: {detail}"), *finding.evidence),
    )


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


def downgrade_live_patched(
    report: KernelReport, patched: tuple[str, ...], in_memory: KernelReport | None
) -> KernelReport:
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


def doubt_transitions(report: KernelReport, in_transition: Sequence[str]) -> KernelReport:
    """The report while live patches come or go: memory shows the new code, and threads may still run the old."""
    doubts = tuple(
        Doubt(
            DoubtKind.CHANGING,
            f"/sys/kernel/livepatch/{patch}/transition",
            f"The live patch {patch} is in transition: some threads run the old code, and some the new.",
        )
        for patch in in_transition
    )
    return msgspec.structs.replace(report, findings=tuple(finding.doubted(*doubts) for finding in report.findings))


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
