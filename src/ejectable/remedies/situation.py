# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that is to be helped, as `check` sees it: read when it is first asked for, and only once."""

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.assess.kernels import status_of
from ejectable.assess.machine import assess
from ejectable.assess.running_kernel import RunningKernel, find
from ejectable.assess.verdicts import Verdicts
from ejectable.intake import DEFAULT_LIMITS, Limits
from ejectable.model import Assessment, Device, Status

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["Situation"]


class Situation:
    """One machine. `offline` forbids asking anything over the network; `tell` gets a label before each slow step."""

    def __init__(
        self,
        root: host.Root,
        advisories: Mapping[str, "Advisory"],
        *,
        limits: Limits = DEFAULT_LIMITS,
        offline: bool = False,
        cache: bool = True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.root = root
        self.advisories = advisories
        self.limits = limits
        self.offline = offline
        self.tell = tell
        self.cache = cache
        self.verdicts = Verdicts(enabled=cache)
        self._whole: Situation | None = None  # of which this is a part

    def again(self) -> "Situation":
        """The same machine, looked at anew: after something was changed."""
        return Situation(
            self.root,
            self.advisories,
            limits=self.limits,
            offline=self.offline,
            cache=self.cache,
            tell=self.tell,
        )

    def about(self, ids: Collection[str]) -> "Situation":
        """The same machine, asked about these advisories alone; nothing is read again for it."""
        if set(self.advisories) <= set(ids):
            return self
        some = {name: advisory for name, advisory in self.advisories.items() if name in ids}
        part = Situation(
            self.root, some, limits=self.limits, offline=self.offline, cache=self.cache, tell=self.tell
        )  # fmt: skip
        part._whole = self
        return part

    @property
    def concerned(self) -> frozenset[str]:
        """The advisories that something has to be done about: what a device meets, or the kernel has."""
        met = {
            one.advisory for device in self.assessment.devices for one in device.exposures
            if one.status in (Status.AFFECTED, Status.UNKNOWN)
        }  # fmt: skip
        report = self.running_kernel.report
        bad = (Status.AFFECTED, Status.MITIGATED)
        return frozenset(met | {one.advisory for one in (report.findings if report else ()) if one.status in bad})

    @cached_property
    def facts(self) -> host.Facts:
        """What the machine's files show."""
        return self._whole.facts if self._whole is not None else host.read(self.root)

    @cached_property
    def running_kernel(self) -> RunningKernel:
        """The kernel that runs, judged."""
        if self._whole is not None:
            return self._whole.running_kernel.about(self.advisories)
        self.tell("reading the kernel in use")
        return find(self.root, self.facts, self.advisories, self.limits, self.verdicts)

    @cached_property
    def assessment(self) -> Assessment:
        """The answer of `check`."""
        return assess(self.facts, self.running_kernel, self.advisories)

    @property
    def kernel_status(self) -> Status:
        """The word for the code of the kernel in use, whatever its devices are."""
        return status_of(self.running_kernel.report) if self.running_kernel.report else Status.UNKNOWN

    @property
    def endangered(self) -> tuple[Device, ...]:
        """The devices whose unplugging would crash the machine, or may: that could not be decided."""
        return tuple(device for device in self.assessment.devices if device.unplug != "safe")

    @property
    def needed(self) -> bool:
        """Whether anything has to be done: something would crash or may, or the kernel has the defect on disk."""
        bad = (Status.AFFECTED, Status.MITIGATED)
        return self.assessment.status in (Status.AFFECTED, Status.UNKNOWN) or self.kernel_status in bad
