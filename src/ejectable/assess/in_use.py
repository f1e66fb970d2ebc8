# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the kernel that a machine runs: found on its disk and proven to be that, or read out of its memory.

A file's name proves nothing: packages are rebuilt under the same name, and an upgrade replaces the file of a release
while the old code goes on running. What proves it is the build-id, which the running kernel shows in
/sys/kernel/notes and /sys/module/*/notes; where it shows none, its whole banner with the time of its build.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from ejectable import host
from ejectable.assess import memory
from ejectable.assess.disk import Shelf, open_image
from ejectable.assess.kernels import judge
from ejectable.assess.verdicts import Verdicts, identity
from ejectable.errors import EjectableError
from ejectable.intake.limits import Limits
from ejectable.model import KernelReport, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory
    from ejectable.kernel.artefact import Kernel

__all__ = ["InUse", "find"]

MAX_OPENED = 6  # images to open in search of the right one
Match = Literal["build-id", "banner", "other", "undecided"]


class InUse(msgspec.Struct, frozen=True):
    """What was found: the report of the kernel in use, or why there is none."""

    report: KernelReport | None
    notes: tuple[str, ...] = ()
    # A kernel on disk of the same release, or the one that boots next, that is not the one that runs.
    on_disk: KernelReport | None = None


def find(
    root: host.Root, facts: host.Facts, advisories: Mapping[str, "Advisory"], limits: Limits, verdicts: Verdicts
) -> InUse:
    """Find the kernel in use and judge it. Damaged files on the way become notes, never errors."""
    search = _Search(root, facts, advisories, limits, verdicts)
    return search.mounted() if facts.running is None else search.running(facts.running)


class _Search:
    def __init__(
        self,
        root: host.Root,
        facts: host.Facts,
        advisories: Mapping[str, "Advisory"],
        limits: Limits,
        verdicts: Verdicts,
    ) -> None:
        self.root = root
        self.facts = facts
        self.advisories = advisories
        self.limits = limits
        self.verdicts = verdicts
        self.notes: list[str] = []
        self.others: list[KernelReport] = []

    def running(self, running: host.Running) -> InUse:
        on_disk = self._on_disk(running)
        in_memory = memory.judged(self.root, running, self.advisories, self.limits, self.verdicts, self.notes)
        if on_disk and in_memory is None and running.patched:
            on_disk = memory.doubted(on_disk, running.patched)
        found = memory.merged(on_disk, in_memory)
        return InUse(found, tuple(self.notes), self.others[0] if self.others else None)

    def mounted(self) -> InUse:
        """Nothing runs here: the kernel that would boot, as far as links and names tell."""
        releases = host.releases(self.root)
        newest = releases[-1] if releases else None
        for path in ("/boot/vmlinuz", "/vmlinuz", "/boot/Image"):
            resolved = self.root.resolve(path) if self.root.file(path) else None
            if resolved:
                newest = resolved.rpartition("/")[2].partition("-")[2] or newest
                break
        for candidate in host.candidates(self.root, newest)[:MAX_OPENED]:
            report = self._judged(candidate.path, None)
            if report:
                self.notes.append("Nothing runs in this tree: the kernel that would boot was judged.")
                return InUse(msgspec.structs.replace(report, running=False), tuple(self.notes))
        self.notes.append("Nothing runs in this tree, and there is no kernel in it.")
        return InUse(None, tuple(self.notes))

    def _on_disk(self, running: host.Running) -> KernelReport | None:
        candidates = host.candidates(self.root, running.release)
        if not any(candidate.named_for_it for candidate in candidates):
            self.notes.append(self._gone(running))
        for candidate in candidates[:MAX_OPENED]:
            report = self._judged(candidate.path, running)
            if report is None:
                continue
            if report.running or (report.running is None and candidate.named_for_it):
                return report
            self.others.append(report)
            if candidate.named_for_it:
                self.notes.append(
                    f"{candidate.path} is named for the running kernel but is another build: the kernel was upgraded "
                    "and not booted yet."
                )
        return None

    def _gone(self, running: host.Running) -> str:
        if self.facts.container:
            return f"This is a container ({self.facts.container}): the kernel is the host's, and its files are there."
        return f"No file of the running kernel {running.release or ''} was found in /boot or /lib/modules."

    def _judged(self, path: str, running: host.Running | None) -> KernelReport | None:
        """The report of one image (with its module, where virtio_pci is one); from the cache where it is known."""
        key = self._key(path, running)
        if key and (kept := self.verdicts.get(key)):
            return kept
        try:
            shelf = Shelf(self.root, running, self.limits)
            kernel = open_image(self.root, path, shelf, self.limits)
            report = self._report(kernel, path, running)
        except EjectableError as error:
            self.notes.append(f"{path} could not be judged: {error.message}")
            return None
        report = self._vouched(report, running)
        self.notes += shelf.notes
        if running and report.running is None:
            self.notes.append(f"Nothing shows that {path} is what runs: no build-id and no banner to compare.")
        elif key and not shelf.notes:
            self.verdicts.put(key, report)
        return report

    def _report(self, kernel: "Kernel", path: str, running: host.Running | None) -> KernelReport:
        match = _match(kernel, running)
        report = judge(kernel, self.advisories)
        how = {
            "build-id": " (its build-id is the running kernel's)",
            "banner": " (its banner is the running kernel's)",
        }.get(match, "")
        if match == "undecided" and running is not None:
            report = _unproven(report)
        proven = None if match == "undecided" else bool(how)
        return msgspec.structs.replace(report, path=path, source=f"{path}{how}", running=proven)

    def _vouched(self, report: KernelReport, running: host.Running | None) -> KernelReport:
        """The report, unless the code that counts was not in what was read: then nothing can be said.

        A machine that has virtio PCI devices with drivers has a virtio_pci; where neither the image nor a module
        that is proven to be the loaded one holds it, its absence from the files is no absence of the defect.
        """
        if report.virtio_pci in ("builtin", "module") or running is None:
            return report
        bound = any(device.transport == "pci" and device.driver for device in self.facts.devices or ())
        if not (bound or running.module_loaded or running.module_build_id):
            return report
        reason = "The virtio_pci module that is loaded was not found on disk, so its code could not be read."
        return msgspec.structs.replace(
            report,
            virtio_pci=None,
            findings=tuple(
                msgspec.structs.replace(finding, status=Status.UNKNOWN, justification=None, reason=reason)
                for finding in report.findings
            ),
        )

    def _key(self, path: str, running: host.Running | None) -> tuple[str, ...] | None:
        files = [path]
        if running and running.release:
            files += host.module_files(self.root, running.release)
        try:
            about = [identity(self.root.outside(file)) for file in files]
        except OSError:
            return None
        ids = [running.build_id or "", running.module_build_id or "", running.banner or ""] if running else []
        return (*sorted(self.advisories), *about, "running", *ids)


def _match(kernel: "Kernel", running: host.Running | None) -> Match:
    """Whether a kernel from a file is the one that runs."""
    if running is None:
        return "undecided"
    if kernel.build_id and running.build_id:
        return "build-id" if kernel.build_id == running.build_id else "other"
    if kernel.banner and running.banner:
        return "banner" if kernel.banner.strip() == running.banner.strip() else "other"
    return "undecided"


def _unproven(report: KernelReport) -> KernelReport:
    """The report of a file that has the right name, and nothing else that says it is what runs.

    An upgrade replaces the file of a release while the old code runs on: a good word about the file is none about
    the machine. A bad one is a warning that stands.
    """
    reason = "Nothing shows that this file is the same build as the running kernel. Of the file: "
    return msgspec.structs.replace(
        report,
        findings=tuple(
            finding
            if finding.status in (Status.AFFECTED, Status.UNKNOWN)
            else msgspec.structs.replace(
                finding, status=Status.UNKNOWN, justification=None, reason=reason + finding.reason
            )
            for finding in report.findings
        ),
    )
