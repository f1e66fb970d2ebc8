# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the kernel that a machine runs: found on its disk and proven to be that, or read out of its memory.

A file's name proves nothing: packages are rebuilt under the same name, and an upgrade replaces the file of a release
while the old code goes on running. What proves it is the build-id, which the running kernel shows in
/sys/kernel/notes and /sys/module/*/notes; where it shows none, its whole banner with the time of its build.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from ejectable import host
from ejectable.assess import memory
from ejectable.assess.disk import unread
from ejectable.assess.downgrade import (
    downgrade_doubted,
    downgrade_in_transition,
    downgrade_live_patched,
    downgrade_refuted,
    downgrade_unlocated,
    downgrade_unproven,
)
from ejectable.assess.installed import Judge
from ejectable.assess.kernels import status_of
from ejectable.assess.verdicts import Verdicts
from ejectable.errors import Denied, EjectableError
from ejectable.host.bootloader.entry import image_of
from ejectable.intake.limits import Limits
from ejectable.model import SEVERITY, Doubt, DoubtKind, KernelReport

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["RunningKernel", "find"]

MOST_INSTALLED = 8  # kernels that are judged where it is not certain which one boots
MAX_OPENED = 6  # images to open in search of the right one
Match = Literal["build-id", "banner", "other", "undecided"]


class RunningKernel(msgspec.Struct, frozen=True):
    """What was found: the report of the kernel in use, or why there is none."""

    report: KernelReport | None
    notes: tuple[str, ...] = ()
    # The kernel on disk that boots next, where that is not the one that runs.
    on_disk: KernelReport | None = None
    certain: bool = False  # that it does, by the boot loader's own files
    refused: tuple[str, ...] = ()  # files that this user may not read
    # By advisory: PCI addresses of devices that were repaired while the kernel runs, whatever is true of the others.
    repaired: dict[str, tuple[str, ...]] = {}

    def about(self, ids: Collection[str]) -> "RunningKernel":
        """The same, with the findings of these advisories alone."""

        def some(report: KernelReport | None) -> KernelReport | None:
            if report is None:
                return None
            return msgspec.structs.replace(
                report, findings=tuple(one for one in report.findings if one.advisory in ids)
            )

        return msgspec.structs.replace(
            self,
            report=some(self.report),
            on_disk=some(self.on_disk),
            repaired={name: addresses for name, addresses in self.repaired.items() if name in ids},
        )


def find(
    root: host.Root, facts: host.Facts, advisories: Mapping[str, "Advisory"], limits: Limits, verdicts: Verdicts
) -> RunningKernel:
    """Find the kernel in use and judge it. Damaged files on the way become notes, never errors."""
    search = _Search(root, facts, advisories, limits, verdicts)
    found = search.mounted() if facts.running is None else search.running(facts.running)
    return msgspec.structs.replace(found, notes=tuple(search.notes), refused=tuple(dict.fromkeys(search.refused)))


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
        self.judge = Judge(root, advisories, limits, verdicts)
        self.notes: list[str] = []
        self.refused: list[str] = []
        self.unread: list[Doubt] = []  # images that could not be judged

    def running(self, running: host.Running) -> RunningKernel:
        on_disk = self._on_disk(running)
        in_memory = memory.judged(self.root, running, self.advisories, self.limits, self.verdicts, self.notes)
        if on_disk:
            on_disk = downgrade_doubted(on_disk, running.doubts)
            on_disk = downgrade_live_patched(on_disk, running.patched, in_memory)
        found = memory.merged(on_disk, in_memory)
        repaired: dict[str, tuple[str, ...]] = {}
        if found:
            found = downgrade_in_transition(found, running.patched)
            found = downgrade_refuted(found, self.facts.devices or (), self.advisories)
            found, repaired = memory.repaired(
                self.root, running, found, self.facts.devices, self.advisories, self.limits, self.notes
            )
        boots = host.boots_next(self.root)
        return RunningKernel(found, on_disk=self._next(boots, on_disk), certain=boots.certain, repaired=repaired)

    def mounted(self) -> RunningKernel:
        """Nothing runs here: the kernel that boots next is judged, and every one where that is not certain."""
        boots = host.boots_next(self.root)
        images = self._images(boots)
        judged = [report for path in images[:MOST_INSTALLED] if (report := self._judged(path, None))]
        if not judged:
            gone = f" {boots.release} boots next ({boots.how}), and its image is not here." if boots.certain else ""
            self.notes.append(f"Nothing runs in this tree, and no kernel in it could be judged.{gone}")
            return RunningKernel(None)
        report = min(judged, key=lambda one: SEVERITY.index(status_of(one)))
        doubts = list(self.unread)
        if len(images) > MOST_INSTALLED:
            detail = f"{len(images)} kernels are installed, and {MOST_INSTALLED} of them were judged."
            doubts.append(Doubt(DoubtKind.BOUND, "/boot", detail))
        if len(images) == 1:
            self.notes.append("Nothing runs in this tree: the kernel that would boot was judged.")
            self._name_others(report)
        else:
            which = f"which of its {len(images)} kernels boots is not certain ({boots.how})"
            self.notes.append(f"Nothing runs in this tree, and {which}: the worst of them is {report.path}.")
        return RunningKernel(msgspec.structs.replace(downgrade_doubted(report, doubts), running=False))

    def _images(self, boots: host.NextBoot) -> list[str]:
        """The images that may boot, the likeliest first; one alone where that is certain."""
        image = boots.image or self._named_for(boots.release)
        if boots.certain:
            return [image] if image else []
        named = [path for one in boots.images if (path := image_of(self.root, one))]
        return list(dict.fromkeys([*([image] if image else []), *host.installed_images(self.root, named)]))

    def _named_for(self, release: str | None) -> str | None:
        """The image that is named for a release, from the root."""
        found = host.candidates(self.root, release) if release else ()
        return next((candidate.path for candidate in found if candidate.named_for_it), None)

    def _name_others(self, report: KernelReport) -> None:
        others = len(set(host.installed_images(self.root)) - {report.path})
        if others:
            count = "1 other kernel is" if others == 1 else f"{others} other kernels are"
            self.notes.append(f"{count} installed: `ejectable kernel {self.root.path / 'boot'}` judges them all.")

    def _next(self, boots: host.NextBoot, running: KernelReport | None) -> KernelReport | None:
        """The kernel that boots next, judged; `None` where it is the one that runs, or cannot be told."""
        path = boots.image or self._named_for(boots.release)
        if self.facts.container or path is None or (running and running.path == path):
            return None
        report = self._judged(path, None)
        if report and boots.release != (self.facts.running.release if self.facts.running else None):
            word = status_of(report).replace("_", " ")
            self.notes.append(f"{path} is installed and was not booted yet: it is {word}.")
        return report

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
        """The report of one image (with its modules); `None` and a note where it failed."""
        try:
            found = self.judge.judge(path, running)
        except EjectableError as error:
            self.unread.append(unread(path, error))
            if isinstance(error, Denied):
                self.refused.append(path)
                self.notes.append(f"{path} may not be read by this user.")
            else:
                self.notes.append(f"{path} could not be judged: {error.message}")
            return None
        self.notes += found.notes
        report = msgspec.structs.replace(found.report, path=path, source=path)
        return report if running is None else self._held_against(report, running)

    def _held_against(self, report: KernelReport, running: host.Running) -> KernelReport:
        """The report with `running`: whether it is the kernel that runs; doubted where nothing shows that it is."""
        match = _match(report, running)
        how = {
            "build-id": " (its build-id is the running kernel's)",
            "banner": " (its banner is the running kernel's)",
        }.get(match, "")
        proven = None if match == "undecided" else bool(how)
        report = msgspec.structs.replace(report, source=f"{report.path}{how}", running=proven)
        if proven is None:
            self.notes.append(f"Nothing shows that {report.path} is what runs: no build-id and no banner to compare.")
            report = downgrade_unproven(report, "the running kernel")
        for module, ids in self._by_module().items():
            place = report.modules.get(module)
            at_work = [name for name in ids if self._in_action(module, self.advisories[name], running)]
            if place == "builtin" or not at_work:
                continue
            if place != "module":
                # A machine that drives such devices has the driver: its absence from the files is no absence of the
                # defect.
                report = downgrade_unlocated(report, module, at_work)
            elif running.modules.get(module) is None:
                report = downgrade_unproven(report, f"the {module} module that is loaded", at_work)
        return report

    def _by_module(self) -> dict[str, list[str]]:
        """The advisories whose code may be a module, by that."""
        found: dict[str, list[str]] = {}
        for name, advisory in self.advisories.items():
            if advisory.code.module:
                found.setdefault(advisory.code.module, []).append(name)
        return found

    def _in_action(self, module: str, advisory: "Advisory", running: host.Running) -> bool:
        """Whether the module is, or may be, at work."""
        devices = self.facts.devices
        return devices is None or module in running.modules or any(advisory.concerns(device) for device in devices)


def _match(report: KernelReport, running: host.Running) -> Match:
    """Whether a kernel from a file is the one that runs."""
    if report.build_id and running.build_id:
        return "build-id" if report.build_id == running.build_id else "other"
    if report.banner and running.banner:
        return "banner" if report.banner.strip() == running.banner.strip() else "other"
    return "undecided"
