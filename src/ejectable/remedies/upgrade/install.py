# SPDX-License-Identifier: GPL-2.0-or-later
"""Install an upgrade: everything is checked before anything is changed, and checked again afterwards."""

from collections.abc import Sequence
from contextlib import ExitStack

from ejectable import host
from ejectable.assess import initramfs
from ejectable.errors import Missing
from ejectable.host import NextBoot, boots_next
from ejectable.model import Applied, Remedy
from ejectable.remedies.changes import Changes
from ejectable.remedies.commands import run
from ejectable.remedies.situation import Situation
from ejectable.remedies.steps import InstallPackages
from ejectable.remedies.upgrade import precautions
from ejectable.remedies.upgrade.backend import Backend, Effect, Offer, not_newer, telling
from ejectable.remedies.upgrade.boot import instead, not_next
from ejectable.remedies.upgrade.choice import select
from ejectable.remedies.upgrade.folders import private
from ejectable.remedies.upgrade.installed import Ready, image_of, ready
from ejectable.remedies.upgrade.verify import Judged, as_named, judge_files, judge_installed

__all__ = ["install"]

INSTALL_S = 3600.0
UNDO = "ejectable fix upgrade --undo"
OTHERS = "`ejectable fix` shows the other remedies."
LOOK = "After the reboot, look whether it is the kernel that runs: `uname -r`, or `ejectable check`."


def install(situation: Situation, changes: Changes, not_needed: Remedy | None) -> Applied:
    """Install the newest kernel if it is good; raises `Missing` with what is in the way, and nothing was changed."""
    if not_needed is not None:
        if not_needed.state == "done":
            return Applied("upgrade", (), verified=True, why=not_needed.why)
        raise Missing(not_needed.why)
    release = situation.facts.host.kernel_release
    if release is None:
        raise Missing("/proc does not say which kernel runs here.", hint="Mount /proc.")
    found, _ = ready(situation, release)
    if found is not None:
        return _rebooting(found)
    backend, offer = _offered(situation, release)
    precautions.free(situation.root, backend.locks())
    with private() as folder, ExitStack() as afterwards:
        afterwards.callback(backend.tidy)
        precautions.room(situation.root, release, offer, folder)
        effect = backend.effect(offer, folder)
        before = _acceptable(backend, offer, effect)
        situation.tell(f"downloading {offer.image.label}")
        files = backend.fetch(offer, folder)
        judged = as_named(judge_files(situation, files), offer.release)
        _insist(judged, offer)
        situation.tell(f"installing {offer.image.label}")
        precautions.free(situation.root, backend.locks())
        argv = backend.install(offer, folder)
        step = InstallPackages(backend.name, effect.new, effect.changed, before, _fresh(situation.root, judged.release))
        with changes.step(step):
            done = run(argv, timeout_s=INSTALL_S, unbroken=True)
            if not done.ok:
                raise Missing(f"{backend.name} could not install {offer.image.label}: {telling(done)}")
    return _checked(situation, release, offer, judged, changes)


def _fresh(root: host.Root, release: str | None) -> str:
    """The release, where nothing of it is on the disk yet: whatever is there later is ours to remove."""
    there = any(one.named_for_it for one in host.candidates(root, release)) or release in host.releases(root)
    return "" if release is None or there else release


def _rebooting(found: Ready) -> Applied:
    why = f"{found.release} is installed already, and its code was read: {found.judged.why}."
    if found.next:
        return Applied("upgrade", (), verified=True, why=f"{why} It boots next.", reboot=True)
    if found.boots.release == found.release:
        why = f"{why} {not_next(found.boots, found.release)}"
        return Applied("upgrade", (), verified=True, why=why, next_steps=(LOOK,), reboot=True)
    return _not_next(found.release, found.boots, (), why)


def _offered(situation: Situation, release: str) -> tuple[Backend, Offer]:
    """The package manager and its newest kernel, where that may be installed at all."""
    backend = select(situation.root, release, offline=situation.offline)
    owner = backend.owner(release)
    if owner is None:
        raise Missing(
            f"No package brought the kernel that runs ({release}).", hint="`ejectable fix source-patch TREE` is for it."
        )
    situation.tell(f"asking {backend.name} for the newest kernel")
    offer = backend.offer(owner)
    if offer.current:
        raise Missing(not_newer(backend, owner), hint=OTHERS)
    if offer.held:
        raise Missing(
            f"{offer.image.label} is on offer, but {'; '.join(offer.held)}.",
            hint=f"If that is no longer wanted: {'; '.join(offer.release_commands)}",
        )
    if situation.offline:
        raise Missing(f"{offer.image.label} has to be downloaded.", hint="Leave --offline away.")
    return backend, offer


def _acceptable(backend: Backend, offer: Offer, effect: Effect) -> tuple[str, ...]:
    """What brings the old versions back; raises `Missing` where the installation would touch anything else."""
    wanted = {package.name for package in offer.wanted} if offer.in_place else set()
    others = [name for name in effect.changed if name not in wanted]
    if effect.removed or others:
        what = [f"remove {name}" for name in effect.removed] + [f"replace {name}" for name in others]
        raise Missing(
            f"Installing {offer.image.label} would also {', '.join(what[:6])}: that is not done in passing.",
            hint=f"Look at it yourself: {'; '.join(backend.commands(offer))}",
        )
    if not effect.new and not effect.changed:
        raise Missing(f"{backend.name} would install nothing: {offer.image.label} is there already.", hint=OTHERS)
    before = backend.before(effect.changed)
    if before is None:
        raise Missing(
            f"{offer.image.label} would replace the kernel in use, and its present version is no longer on offer: it "
            "could not be taken back.",
            hint=f"If that is all right: {'; '.join(backend.commands(offer))}",
        )
    return before


def _insist(judged: Judged, offer: Offer) -> None:
    """Raises `Missing` unless the code of the downloaded kernel has the fix."""
    if judged.word == "good":
        return
    what = {
        "affected": "still has the defect: its code was read, and",
        "unknown": "could not be judged:",
        "unfit": "does not fit this machine:",
    }[judged.word]
    raise Missing(f"{offer.image.label} {what} {judged.why}. Nothing was installed.", hint=OTHERS)


def _checked(situation: Situation, running: str, offer: Offer, judged: Judged, changes: Changes) -> Applied:
    """Whether what is on the disk now is what was judged, can boot, and will."""
    seen = situation.again()
    root = seen.root
    release = judged.release or offer.release or ""
    path = image_of(root, release)
    if path is None:
        raise Missing(
            f"{offer.image.label} was installed, but there is no image of {release} in /boot or /lib/modules."
        )
    there = judge_installed(seen, path)
    if (there.word, there.build_id) != ("good", judged.build_id):
        raise Missing(
            f"{path} is not the kernel that was judged: build-id {there.build_id or 'unknown'} instead of "
            f"{judged.build_id or 'unknown'}, {there.why}."
        )
    model = initramfs.names(root, running)
    if model and not initramfs.names(root, release):
        raise Missing(
            f"{release} was installed without its initramfs: the kernel in use has {model[0]} in /boot, and it none."
        )
    boots = boots_next(root)
    why = f"{path} is the kernel that was judged (build-id {there.build_id}): {there.why}."
    if boots.release != release:
        return _not_next(release, boots, changes.done, why)
    next_boot = f"It boots next, by {boots.how}" if boots.certain else not_next(boots, release).rstrip(".")
    return Applied(
        "upgrade",
        tuple(changes.done),
        verified=True,
        why=f"{why} {next_boot}; until then the old kernel runs.",
        next_steps=() if boots.certain else (LOOK,),
        reboot=True,
        undo=UNDO,
    )


def _not_next(release: str, boots: NextBoot, done: Sequence[str], why: str) -> Applied:
    """It is there, and something else boots, or may: that is not the end of the danger."""
    steps = (*(f"Make {release} boot next: `{command}`" for command in instead(boots, release)), "Then reboot.")
    why = f"{why} {not_next(boots, release)}"
    return Applied("upgrade", tuple(done), verified=False, why=why, next_steps=steps, undo=UNDO if done else None)
