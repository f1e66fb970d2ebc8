# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel that is installed on a machine, judged with the modules that it loads, or that a boot of it would load.

What is read on the way is recorded, and a verdict is kept with it. Where a boot may load one of several modules, each
is judged and the worst word is said: the initramfs comes first, and the disk where it lacks the module.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ejectable import host
from ejectable.advisories import places_of
from ejectable.assess.confined import confined
from ejectable.assess.disk import DiskModules, open_image
from ejectable.assess.downgrade import downgrade_doubted
from ejectable.assess.kernels import judge
from ejectable.assess.verdicts import Verdicts
from ejectable.intake.limits import Limits
from ejectable.intake.seen import Seen
from ejectable.model import Doubt, DoubtKind, KernelReport, worst

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["Installed", "Judge"]

MOST_CHOICES = 4  # modules that are judged for one image


class Installed(msgspec.Struct, frozen=True):
    """An image judged, and the modules that were passed over, in words."""

    report: KernelReport
    notes: tuple[str, ...] = ()


class _Read(msgspec.Struct, frozen=True):
    """What a confined process gives back."""

    found: Installed
    doubtful: bool  # something that the words rest on was not seen
    seen: tuple[Seen, ...]
    unseen: tuple[Doubt, ...]  # about everything that was looked at


class Judge:
    """Judges the images of one machine; of the kernel that runs, `running` tells which module is loaded."""

    def __init__(
        self, root: host.Root, advisories: Mapping[str, "Advisory"], limits: Limits, verdicts: Verdicts
    ) -> None:
        self._root = root
        self._advisories = advisories
        self._limits = limits
        self._verdicts = verdicts
        self._places = places_of(advisories.values())

    def judge(self, path: str, running: host.Running | None = None) -> Installed:
        """What the advisories say of the image at `path`; raises an `EjectableError` where it cannot be read."""
        ids: tuple[str, ...] = ()
        if running:
            ids = (running.release or "", *(f"{name} {running.modules.get(name, '-')}" for name in self._places))
        key = (*sorted(self._advisories), "installed", str(self._root.path), path, *ids)
        if kept := self._verdicts.get(key, self._root):
            return Installed(kept)
        names = tuple(self._advisories)
        read = confined(
            lambda: self._recorded(path, running), (self._root.outside(path),), self._limits, into=_Read, ids=names
        )
        for doubt in read.unseen:
            self._root.note(doubt)
        found = read.found
        if not (read.doubtful or found.notes):
            self._verdicts.put(key, found.report, read.seen)
        return found

    def _recorded(self, path: str, running: host.Running | None) -> "_Read":
        """The image judged, with all that was looked at for it; this is what a confined process does."""
        with self._root.recording() as recording:
            found, doubtful = self._read(path, running)
        report = downgrade_doubted(found.report, recording.changed)
        return _Read(
            msgspec.structs.replace(found, report=report), doubtful or bool(recording.changed), recording.seen,
            recording.doubts,
        )  # fmt: skip

    def _read(self, path: str, running: host.Running | None) -> tuple[Installed, bool]:
        """The image judged, and whether anything that its words rest on was not seen."""
        root = self._root
        modules = DiskModules(root, running, self._limits, path, self._places)
        report = judge(open_image(root, path, modules, self._limits), self._advisories)
        for number in range(1, min(modules.most_choices, MOST_CHOICES)):
            other = DiskModules(root, running, self._limits, path, self._places, choose=number)
            found = judge(open_image(root, path, other, self._limits), self._advisories)
            report = self._worse(report, found, other)
        doubts = dict(modules.doubts)
        if modules.most_choices > MOST_CHOICES:
            detail = f"{modules.most_choices} different modules may be loaded with {path}; {MOST_CHOICES} were judged."
            for name in self._places:
                doubts[name] = [*doubts.get(name, ()), Doubt(DoubtKind.BOUND, path, detail)]
        findings = []
        doubtful = False
        for finding in report.findings:
            code = self._advisories[finding.advisory].code
            asked = [name for name in (code.module, *code.also) if name and report.modules.get(name) != "builtin"]
            about = [doubt for name in asked for doubt in doubts.get(name, ())]
            doubtful = doubtful or bool(about)
            findings.append(finding.doubted(*about))
        return Installed(msgspec.structs.replace(report, findings=tuple(findings)), tuple(modules.notes)), doubtful

    def _worse(self, one: KernelReport, other: KernelReport, modules: DiskModules) -> KernelReport:
        """The report with the worse of two findings about each advisory; the other's are of the modules given."""
        others = {finding.advisory: finding for finding in other.findings}
        findings = []
        for finding in one.findings:
            second = others[finding.advisory]
            if worst((finding.status, second.status)) is not finding.status:
                module = modules.chosen(self._advisories[finding.advisory].code.module or "") or "another module"
                reason = f"{module}, which a boot loads: {second.reason}"
                finding = msgspec.structs.replace(second, reason=reason)  # noqa: PLW2901
            findings.append(finding)
        return msgspec.structs.replace(one, findings=tuple(findings))
