# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an advisory is fit for use: its facts complete and cited, its experiment repeatable and made of runs that
differ, without files and without network.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from ejectable.advisories import Advisory
from ejectable.advisories.code import locate
from ejectable.advisories.facts import Commit, FixedPackage, LookAlike, Release
from ejectable.advisories.signature import Signature
from ejectable.assess.confined import confined
from ejectable.errors import EjectableError
from ejectable.experiment import Bench
from ejectable.intake.limits import Limits
from ejectable.model import Device, Finding, Status

__all__ = ["Examined", "examine", "faults"]

ROLES = ("introduced", "fixed", "fixed-stable", "redesigned")
KINDS = ("disk", "nic", "scsi", "console", "rng", "balloon", "vsock", "fs", "nvme", "unknown")
BUSES = ("virtio", "pci", "nvme", "scsi", "xen", "vmbus")


class Examined(msgspec.Struct, frozen=True):
    """What an experiment did on one kernel."""

    kernel: str
    status: Status
    reason: str
    story: tuple[str, ...]
    ran: bool  # the kernel has the code, and the experiment was run
    repeats: bool  # a second time it came to the same
    runs: int  # of the kernel's code that it decided by
    differ: bool  # not all of them went the same way

    @property
    def faults(self) -> Iterator[str]:
        """What is wrong with it, in sentences."""
        if not self.ran:
            return
        if not self.repeats:
            yield f"{self.kernel}: run a second time, the experiment came to something else."
        if self.status is not Status.UNKNOWN and self.runs < 2:
            yield f"{self.kernel}: it decided by {self.runs} run: what decides is a pair of runs that differ."
        elif self.status is not Status.UNKNOWN and not self.differ:
            yield f"{self.kernel}: its runs all went the same way: what decides is a pair of runs that differ."


def faults(advisory: Advisory) -> Iterator[str]:
    """What is wrong with an advisory's facts and parts, in sentences."""
    facts = advisory.facts
    if facts.id != advisory.id:
        yield f"facts.toml is of {facts.id}, and the class of {advisory.id}."
    for name in ("title", "summary", "file", "function"):
        if not getattr(facts, name).strip():
            yield f"facts.toml: {name} is empty."
    if facts.function not in advisory.code.functions:
        yield f"facts.toml: the function {facts.function} is none of the code's: {', '.join(advisory.code.functions)}."
    if not facts.commits:
        yield "facts.toml: no commit is named, neither one that introduced it nor one that fixed it."
    for commit in facts.commits:
        if commit.role not in ROLES:
            yield f"facts.toml: the role of a commit is one of {', '.join(ROLES)}, not {commit.role!r}."
        if commit.id is not None and not re.fullmatch(r"[0-9a-f]{40}", commit.id):
            yield f"facts.toml: {commit.id!r} is no commit's id: 40 hex digits."
    cited: tuple[Commit | Release | FixedPackage | LookAlike, ...] = (
        *facts.commits,
        *facts.releases,
        *facts.packages,
        *facts.look_alikes,
    )
    yield from (f"facts.toml: this names no source: {fact}." for fact in cited if not fact.source.strip())
    if not facts.references:
        yield "facts.toml: no reference says where to read more."
    yield from (
        f"facts.toml: {one.url!r} is no https:// address." for one in facts.references if one.url[:8] != "https://"
    )
    if not advisory.operations:
        yield "It names no operation that meets the defect."
    yield from _patterns(advisory)
    yield from _devices(advisory)


def _patterns(advisory: Advisory) -> Iterator[str]:
    signature = advisory.signature
    if not isinstance(signature, Signature):
        return
    for pattern in (signature.at, *signature.needs, *signature.not_there, *signature.pair):
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"Its signature's pattern {pattern!r} is none: {error}."


def _devices(advisory: Advisory) -> Iterator[str]:
    """Whether it can be asked about any device, those of which little is known too."""
    finding = Finding(advisory.id, Status.AFFECTED, None, "", (), conflict=False)
    for bus in BUSES:
        for kind in KINDS:
            device = Device("d0", "unknown", None, kind, None, (), "unknown", None, "unknown", "", bus=bus)
            try:
                advisory.exposures(device, finding)
            except Exception as error:  # noqa: BLE001  (whatever it is, it is what is looked for)
                yield f"Asked about a device of which little is known ({bus}, {kind}), it fails: {error!r}."
                return


def examine(advisory: Advisory, path: str, limits: Limits) -> Sequence[Examined]:
    """What the experiment does on the kernels in a file; run in a process that has no files and no network.

    Raises an `EjectableError` where there is no kernel, or the process ended.
    """
    found = confined(lambda: _examine(advisory, path, limits), (path,), limits, into=_All, ids=(advisory.id,))
    return found.all


class _All(msgspec.Struct, frozen=True):
    all: tuple[Examined, ...]


def _examine(advisory: Advisory, path: str, limits: Limits) -> _All:
    from ejectable.kernel import Kernel
    from ejectable.kernel.open import open_kernels

    kernels = [kernel for kernel in open_kernels(path, limits=limits) if isinstance(kernel, Kernel)]
    return _All(tuple(_one(advisory, kernel) for kernel in kernels))


def _one(advisory: Advisory, kernel: "object") -> Examined:
    from ejectable.kernel import Kernel

    assert isinstance(kernel, Kernel)
    finding = advisory.probe(kernel)
    program = None if kernel.source_tree is not None else locate(kernel, advisory.code)[0]
    if program is None:
        return Examined(kernel.name, finding.status, finding.reason, (), False, True, 0, False)
    results, runs = [], []
    for _ in range(2):
        bench = Bench(program)
        try:
            found = advisory.experiment(bench)
            results.append((found.says, found.detail, found.story))
        except EjectableError as error:
            results.append((Status.UNKNOWN, error.message, ()))
        runs = bench.runs
    ways = {(run.exit, run.function, tuple(call.name for call in run.calls), run.fault is None) for run in runs}
    return Examined(
        kernel.name, finding.status, finding.reason, tuple(finding.explanation), True, results[0] == results[1],
        len(runs), len(ways) > 1,
    )  # fmt: skip
