# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel that is installed on a machine, judged with the module that it loads, or that a boot of it would load.

What is read on the way is recorded, and a verdict is kept with it. Where a boot may load one of several modules, each
is judged and the worst word is said: the initramfs comes first, and the disk where it lacks the module.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ejectable import host
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
    doubts: tuple[Doubt, ...]  # about what the words rest on
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

    def judge(self, path: str, running: host.Running | None = None) -> Installed:
        """What the advisories say of the image at `path`; raises an `EjectableError` where it cannot be read."""
        ids = (running.release or "", running.module_build_id or "") if running else ()
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
        if not (read.doubts or found.notes):
            self._verdicts.put(key, found.report, read.seen)
        return msgspec.structs.replace(found, report=downgrade_doubted(found.report, read.doubts))

    def _recorded(self, path: str, running: host.Running | None) -> "_Read":
        """The image judged, with all that was looked at for it; this is what a confined process does."""
        with self._root.recording() as recording:
            found, doubts = self._read(path, running)
        return _Read(found, (*doubts, *recording.changed), recording.seen, recording.doubts)

    def _read(self, path: str, running: host.Running | None) -> tuple[Installed, tuple[Doubt, ...]]:
        """The image judged, and what was not seen of all that the words rest on."""
        root = self._root
        modules = DiskModules(root, running, self._limits, path)
        report = judge(open_image(root, path, modules, self._limits), self._advisories)
        for number in range(1, min(len(modules.choices), MOST_CHOICES)):
            other = DiskModules(root, running, self._limits, path, number)
            found = judge(open_image(root, path, other, self._limits), self._advisories)
            report = _worse(report, found, modules.choices[number][0][0])
        doubts: list[Doubt] = []
        if report.virtio_pci != "builtin":  # else no module counts
            doubts += modules.doubts
            if len(modules.choices) > MOST_CHOICES:
                detail = (
                    f"{len(modules.choices)} different modules may be loaded with {path}; {MOST_CHOICES} were judged."
                )
                doubts.append(Doubt(DoubtKind.BOUND, path, detail))
        return Installed(report, tuple(modules.notes)), tuple(doubts)


def _worse(one: KernelReport, other: KernelReport, module: str) -> KernelReport:
    """The report with the worse of two findings about each advisory; the other's are of `module`."""
    others = {finding.advisory: finding for finding in other.findings}
    findings = []
    for finding in one.findings:
        second = others[finding.advisory]
        if worst((finding.status, second.status)) is not finding.status:
            reason = f"{module}, which a boot loads: {second.reason}"
            finding = msgspec.structs.replace(second, reason=reason)  # noqa: PLW2901
        findings.append(finding)
    return msgspec.structs.replace(one, findings=tuple(findings))
