# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the running kernel out of its memory, and what it adds to what was read on disk."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ejectable import host
from ejectable.assess.confined import confined
from ejectable.assess.kernels import judge
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import Denied, EjectableError, Missing
from ejectable.intake.limits import Limits
from ejectable.model import SAFE, Device, Evidence, EvidenceKind, Finding, KernelReport, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory
    from ejectable.kernel.memory import MemoryKernel

__all__ = ["judged", "look", "merged", "open_memory", "repaired"]

ORDER = tuple(EvidenceKind)
KCORE, KALLSYMS, TYPES = "/proc/kcore", "/proc/kallsyms", "/sys/kernel/btf"
T = TypeVar("T")


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
        report = look(
            root, running, limits, lambda kernel: judge(kernel, advisories), into=KernelReport, ids=advisories
        )
    except EjectableError as error:
        # Who is not root may not, and need not be told why; as root, it is the kernel's lockdown or configuration.
        if root.live and not (isinstance(error, Denied) and os.geteuid()):
            notes.append(f"The code in memory could not be read: {error.message}")
        return None
    report = msgspec.structs.replace(report, source=f"{KCORE} (the code as it runs)", running=True)
    if key:
        verdicts.put(key, report)
    return report


def look(
    root: host.Root,
    running: host.Running,
    limits: Limits,
    work: Callable[["MemoryKernel"], T],
    *,
    into: Any,
    ids: Iterable[str],
) -> T:
    """What `work` returns of the memory of the running kernel, which is read in a confined process; `into` is its type.

    Raises an `EjectableError` where it may not be read, and what `work` raises; `Ended` where the process died.
    """

    def inside() -> T:
        with closing(open_memory(root, running, limits)) as kernel:
            return work(kernel)

    paths = [place for path in (KCORE, KALLSYMS) if (place := root.file(path)) is not None]
    return confined(inside, [*paths, _types_of(root)], limits, into=into, ids=tuple(ids), alone=True)


def _types_of(root: host.Root) -> str:
    """The folder with the types of the running kernel and its modules."""
    return root.outside(root.resolve(TYPES) or TYPES)


def open_memory(root: host.Root, running: host.Running, limits: Limits) -> "MemoryKernel":
    """The memory of the running kernel; close it. Raises an `EjectableError` where it may not be read."""
    from ejectable.kernel.memory import MemoryKernel

    kcore, kallsyms = root.file(KCORE), root.file(KALLSYMS)
    if kcore is None or kallsyms is None:
        raise Missing(f"There is no {KCORE if kcore is None else KALLSYMS} here.", hint="Is /proc mounted?")
    return MemoryKernel(
        kcore=kcore,
        kallsyms=kallsyms,
        btf_folder=_types_of(root),
        release=running.release,
        banner=running.banner,
        build_id=running.build_id,
        patched=tuple(map(str, running.patched)),
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
) -> tuple[KernelReport, dict[str, tuple[str, ...]]]:
    """The report, `mitigated` where a module guards each device that is there; by advisory the addresses of those.

    Never from the cache: devices come and go. Where the module is loaded and memory may not be read, nobody knows.
    """
    modules = root.text("/proc/modules", 4 << 20) or ""
    covered: dict[str, tuple[str, ...]] = {}
    findings = []
    for finding in report.findings:
        advisory = advisories[finding.advisory]
        alive = advisory.live
        if finding.status is Status.AFFECTED and alive is not None and alive.loaded(modules):
            try:
                driver = running.modules.get(advisory.code.module or "")
                repairs = partial(alive.repairs, modules=modules, driver_build_id=driver)
                found = look(root, running, limits, repairs, into=alive.Repairs, ids=advisories)
            except EjectableError as error:
                finding = _undecided(finding, alive.MODULE, error.message)  # noqa: PLW2901
            else:
                covered[advisory.id] = found.repaired
                notes.append(f"The module {alive.MODULE} is loaded: {found.detail}.")
                wanted = {device.address for device in devices or () if _comes_to(advisory, device, finding)}
                if found.guarded and not found.bare and wanted <= set(found.repaired):
                    finding = _mitigated(finding, found.detail)  # noqa: PLW2901
        findings.append(finding)
    return msgspec.structs.replace(report, findings=tuple(findings)), covered


def _comes_to(advisory: "Advisory", device: Device, finding: Finding) -> bool:
    """Whether a device comes to the faulty code, or may."""
    reach = advisory.exposure(device, finding)
    return reach is not None and reach.met is not False


def _undecided(finding: Finding, module: str, why: str) -> Finding:
    return msgspec.structs.replace(
        finding,
        status=Status.UNKNOWN,
        reason=f"The module {module} is loaded, and whether it repaired every device could not be seen: {why} Of the "
        f"kernel: {finding.reason}",
    )


def _mitigated(finding: Finding, detail: str) -> Finding:
    """The finding where every device that comes to the code, or may, is guarded."""
    return msgspec.structs.replace(
        finding,
        status=Status.MITIGATED,
        reason=f"The kernel is affected, and it is repaired while it runs: {detail}.",
        evidence=(Evidence(EvidenceKind.EXECUTED, Status.MITIGATED, f"in memory: {detail}"), *finding.evidence),
    )


def merged(on_disk: KernelReport | None, in_memory: KernelReport | None) -> KernelReport | None:
    """One report of both. Memory is what runs, so it decides where it says anything that is as strong as the disk's.

    `mitigated`: affected on disk, repaired in the running kernel.
    """
    if on_disk is None or in_memory is None:
        return on_disk or in_memory
    memory = {finding.advisory: finding for finding in in_memory.findings}
    findings = tuple(_one(finding, memory.get(finding.advisory)) for finding in on_disk.findings)
    return msgspec.structs.replace(
        on_disk, findings=findings, source=f"{on_disk.source} and {in_memory.source}", running=True
    )


def _one(disk: Finding, memory: Finding | None) -> Finding:
    if memory is None or memory.status is Status.UNKNOWN:
        return disk
    evidence = tuple(msgspec.structs.replace(item, detail=f"in memory: {item.detail}") for item in memory.evidence)
    both = msgspec.structs.replace(
        memory,
        evidence=(*evidence, *disk.evidence),
        explanation=(*memory.explanation, *disk.explanation),
        conflict=memory.conflict or disk.conflict or _against(disk.status, memory.status),
    )
    if disk.status is not Status.AFFECTED or memory.status not in SAFE:
        return both
    if _strength(memory) > _strength(disk):
        # That a symbol or a member is not there says less than what was executed on the disk's copy of the same build.
        reason = f"{disk.reason} What memory shows is weaker evidence: {memory.reason}"
        return msgspec.structs.replace(both, status=disk.status, justification=None, reason=reason)
    return msgspec.structs.replace(
        both,
        status=Status.MITIGATED,
        justification=None,
        reason=f"The kernel on disk is affected, and its code in memory is not: it was patched live. {memory.reason}",
        conflict=False,
    )


def _strength(finding: Finding) -> int:
    """How strong the best evidence for its word is: 0 is the strongest, execution."""
    kinds = [ORDER.index(item.kind) for item in finding.evidence if item.says is finding.status]
    return min(kinds, default=len(ORDER))


def _against(one: Status, other: Status) -> bool:
    return one is not Status.UNKNOWN and (one in SAFE) != (other in SAFE)


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
        *map(str, running.patched),
        state.hexdigest(),
    )
