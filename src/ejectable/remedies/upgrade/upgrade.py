# SPDX-License-Identifier: GPL-2.0-or-later
"""The remedy `upgrade`: as the knowledge base asks, take the newest kernel package and verify that the fix is in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from ejectable.errors import BadInput, EjectableError, WrongUsage
from ejectable.model import SAFE, Applied, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.records import Records
from ejectable.remedies.remediation import Remediation, Request
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import InstallPackages, Reach
from ejectable.remedies.upgrade import tree
from ejectable.remedies.upgrade.backend import Backend, Offer, Owner, Package, not_newer
from ejectable.remedies.upgrade.boot import instead, not_next
from ejectable.remedies.upgrade.choice import select
from ejectable.remedies.upgrade.folders import private
from ejectable.remedies.upgrade.install import install
from ejectable.remedies.upgrade.installed import Ready, ready
from ejectable.remedies.upgrade.rollback import refusal
from ejectable.remedies.upgrade.verify import Judged, as_named, judge_packages

__all__ = ["Upgrade"]

MIB = 1 << 20
COST = "a reboot"
REBOOT = "sudo systemctl reboot"


class Upgrade(Remediation):
    """The newest kernel package that this system's own package manager offers, if its code has the fix."""

    name: ClassVar[str] = "upgrade"
    durable: ClassVar[bool] = True
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "tree"
    reach: ClassVar[Reach] = Reach(InstallPackages)

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """What the newest package would do; it is downloaded to be read, and not installed."""
        del request
        if line := self._not_needed(situation):
            return line
        if not situation.root.live:
            return tree.plan(situation, self)
        release = situation.facts.host.kernel_release
        if release is None:
            return self.impossible("/proc does not say which kernel runs here.")
        found, said = ready(situation, release)
        if found is not None:
            return self._reboot(found, said)
        backend = select(situation.root, release, offline=situation.offline)
        owner = backend.owner(release)
        if owner is None:
            return self.impossible(
                f"No package of {backend.name}'s brought the kernel that runs ({release}): it was built or installed "
                "by hand. Its own source has to be patched.",
                commands=("ejectable fix source-patch TREE",),
                details=said,
            )
        return self._planned(situation, backend, owner, said)

    def _not_needed(self, situation: Situation) -> Remedy | None:
        status = situation.kernel_status
        report = situation.running_kernel.report
        if situation.facts.container:
            return self.impossible(
                f"This is a container ({situation.facts.container}): the kernel is its host's, and is upgraded there."
            )
        if report is not None and status in SAFE - {Status.MITIGATED}:
            has = "has the fix" if status is Status.FIXED else "does not have the faulty code"
            why = f"The kernel in use, {report.release or report.path}, {has}."
            return Remedy(self.name, "done", why, (), verified=True, cost="nothing")
        if not situation.needed and status is not Status.MITIGATED:
            return self.impossible("Nothing here would crash: there is no reason to change the kernel.")
        return None

    def _reboot(self, found: Ready, said: tuple[str, ...]) -> Remedy:
        """A good kernel is on the disk: nothing has to be downloaded."""
        why = f"{found.release} is installed and was not booted yet. Its code was read: {found.judged.why}."
        commands: tuple[str, ...] = (REBOOT,)
        if found.next:
            why += " It boots next: a reboot is all that is needed."
        else:
            commands = (*instead(found.boots, found.release), REBOOT)
            why += f" {not_next(found.boots, found.release)}"
        details = (*said, f"What boots next: {found.boots.release or 'unknown'}, by {found.boots.how}.")
        return Remedy(self.name, "possible", why, commands, verified=True, cost=COST, details=details)

    def _planned(self, situation: Situation, backend: Backend, owner: Owner, said: tuple[str, ...]) -> Remedy:
        situation.tell(f"asking {backend.name} for the newest kernel")
        offer = backend.offer(owner)
        details = [
            f"The kernel in use came in {owner.label}"
            + (f", followed by {', '.join(owner.followed)}." if owner.followed else "."),
            f"The newest on offer is {offer.image.label}" + (f" (through {offer.via})." if offer.via else "."),
            *said,
        ]
        if offer.current:
            why = not_newer(backend, owner)
            return self.impossible(why, details=(*details, *backend.notes, *backend.stale))
        judged, trouble = self._judged(situation, backend, offer)
        details += [*backend.notes, *backend.stale]
        return self._line(backend, offer, judged, trouble, details)

    def _judged(self, situation: Situation, backend: Backend, offer: Offer) -> tuple[Judged | None, str]:
        """What its code says; `None` and why where nobody could look."""

        def download(packages: Sequence[Package]) -> list[Path]:
            for package in packages:
                size = f" ({package.size // MIB + 1} MiB)" if package.size else ""
                situation.tell(f"downloading {package.name}{size}")
            return backend.download(packages, folder)

        try:
            with private() as folder:
                how = None if situation.offline else download
                judged = judge_packages(situation, offer.image, offer.parts, how)
            if judged is None:
                return None, "--offline forbids downloading it"
            return as_named(judged, offer.release), ""
        except BadInput as error:  # it was downloaded, and is no kernel that could be read
            return Judged("unknown", error.message.rstrip(".")), ""
        except EjectableError as error:
            return None, error.message.rstrip(".")

    def _line(self, backend: Backend, offer: Offer, judged: Judged | None, trouble: str, details: list[str]) -> Remedy:
        label = offer.image.label
        if judged is not None and judged.word == "affected":
            return self.impossible(
                f"The newest kernel that {backend.name} offers, {label}, still has the defect. Its code was read: "
                f"{judged.why}. {_until(backend)}, another remedy has to do.",
                details=details,
            )
        if judged is not None and judged.word in ("unknown", "unfit"):
            said = (
                "Whether the fix is in it could not be decided" if judged.word == "unknown" else "It does not fit here"
            )
            return self.impossible(
                f"The newest kernel that {backend.name} offers is {label}. {said}: {judged.why}.",
                details=details,
            )
        if judged is not None:
            why = f"{label} is on offer, and its code was read: {judged.why}."
        else:
            why = f"{label} is on offer. Whether the fix is in it was not verified: {trouble}."
        if offer.held:
            return self.impossible(
                f"{why} But {'; '.join(offer.held)}: whoever did that has to let go of it first.",
                commands=offer.release_commands,
                details=details,
            )
        if judged is None:
            commands: tuple[str, ...] = ("sudo ejectable fix upgrade --apply",)
        else:
            commands = (*backend.commands(offer), REBOOT)
        return Remedy(
            self.name, "possible", why, commands, verified=judged is not None, cost=COST, details=tuple(details)
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Install exactly the kernel that was judged, and see that it is what is there then."""
        del request
        if not situation.root.live:
            raise WrongUsage(
                "`upgrade` installs packages on the machine that it runs on only.",
                hint="For a mounted image: `ejectable fix upgrade --root DIR` shows the commands.",
            )
        return install(situation, changes, self._not_needed(situation))

    def undo(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Remove what was installed, unless it is what runs by now."""
        records = [one for one in Records(situation.root).all() if (one.remedy, one.state) == (self.name, "done")]
        for step in records[-1].steps if records else ():
            if isinstance(step, InstallPackages) and (why := refusal(situation.root, step.manager, step.new)):
                raise WrongUsage(f"It cannot be taken back now: {why}", hint="Boot another kernel first.")
        return super().undo(situation, request, changes)


def _until(backend: Backend) -> str:
    if backend.stale:
        return f"Whether a fixed one was published since is not known ({backend.stale[0].rstrip('.')}); until then"
    return "Until a fixed one is published"
