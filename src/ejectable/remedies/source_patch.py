# SPDX-License-Identifier: GPL-2.0-or-later
"""For those who build their own kernel: find the condition in the source, repair it, prove it."""

import re
import shlex
from pathlib import Path
from typing import ClassVar, Literal

from ejectable.advisories import registry
from ejectable.advisories.source_fix import SourceFix
from ejectable.errors import BadInput, OurFault, WrongUsage
from ejectable.kernel.containers.folder import is_source_tree, source_release
from ejectable.model import SAFE, Applied, Remedy, Status
from ejectable.remedies.changes import Changes
from ejectable.remedies.cherry_pick import cherry_pick
from ejectable.remedies.remediation import Remediation, Request, undone
from ejectable.remedies.situation import Situation
from ejectable.remedies.source_tree import ENCODING, SourceTree, open_tree
from ejectable.remedies.steps import Reach

__all__ = ["SourcePatch"]

ASK_FOR_A_TREE = "ejectable fix source-patch TREE"


def _reach() -> Reach:
    """The files that the known repairs change, in any tree, and the modules that are built."""
    fixes = [one.source_fix for one in registry().values() if one.source_fix is not None]
    sources = [rf"/.*/{fix.folder}/{re.escape(fix.file)}" for fix in fixes]
    return Reach(files=[*sources, *(rf"/.*/built/{fix.module}-[\w.+~-]+\.ko" for fix in fixes)])


class SourcePatch(Remediation):
    """Repair the condition in a kernel source tree."""

    name: ClassVar[str] = "source-patch"
    options: ClassVar[tuple[str, ...]] = ("target", "build")
    durable: ClassVar[bool] = True
    where: ClassVar[Literal["live", "tree", "anywhere"]] = "anywhere"
    needs_root: ClassVar[bool] = False
    reach: ClassVar[Reach] = _reach()

    def status(self, situation: Situation, request: Request) -> Status:
        """The tree's word; the machine's where none was named. Raises for what is no kernel source tree."""
        if request.target is None:
            return super().status(situation, request)
        return open_tree(request.target, _fix(situation)).reading.status

    def plan(self, situation: Situation, request: Request) -> Remedy:
        """What the tree says, and the patch; without a tree, that of the running kernel where it lies here."""
        given = request.target or _own_tree(situation)
        if given is None:
            why = "For those who build their own kernel: name the source tree, and it shows the patch."
            return self.impossible(why, commands=(ASK_FOR_A_TREE,))
        tree = open_tree(given, _fix(situation))
        reading, release = tree.reading, source_release(tree.top)
        details = [f"{tree.fix.folder}/{tree.fix.file}: {reading.detail}"]
        details += [f"The tree is of Linux {release}."] if release else []
        if reading.status in SAFE:
            return Remedy(
                self.name,
                "done",
                tree.fix.no_need(tree.reading),
                (),
                verified=True,
                cost="nothing",
                details=tuple(details),
            )
        if reading.status is not Status.AFFECTED:
            return self.impossible(f"The condition in {given} is not understood: {reading.detail}.", details=details)
        try:
            text = tree.repaired()
        except BadInput as error:
            return self.impossible(error.message, details=details)
        building = [] if request.build is None else ["--build", request.build]
        commands = [shlex.join(["ejectable", "fix", self.name, given, "--apply", *building])]
        picked = cherry_pick(tree)
        if picked:
            details.append(picked.words)
        if picked and picked.applies:
            commands.append(shlex.join(["git", "-C", given, "cherry-pick", "-n", picked.commit]))
        why = f"In {given} {tree.fix.defect} has the guard."
        if picked and picked.applies:
            why += f" Instead, the upstream fix can be cherry-picked: {picked.commit[:12]}."
        return Remedy(
            self.name,
            "possible",
            why,
            tuple(commands),
            verified=True,
            cost="building and installing a kernel, and a reboot",
            details=tuple(details),
            diff=tree.diff(text),
        )

    def apply(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Write the file, read it again, and build and judge the module where --build asks for it."""
        if request.target is None:
            raise WrongUsage("Which tree?", hint=f"`{ASK_FOR_A_TREE} --apply`, TREE being a kernel source tree.")
        tree = open_tree(request.target, _fix(situation))
        diff: tuple[str, ...] = ()
        if tree.reading.status is Status.UNKNOWN:
            raise BadInput(
                f"the condition is not understood: {tree.reading.detail}; nothing was changed", path=str(tree.common)
            )
        why = tree.fix.no_need(tree.reading)
        if tree.reading.status is Status.AFFECTED:
            text = tree.repaired()
            diff = tree.diff(text)
            changes.write(str(tree.common), text.encode(*ENCODING))
            tree = tree.again()
            if tree.reading.status is not Status.FIXED:
                raise OurFault(f"{tree.common}: after the change it still reads: {tree.reading.detail}.")
            why = f"Read again: {tree.reading.detail}."
        steps = [] if not diff else _steps(request.target)
        if request.build is not None:
            proof, steps = self._build(tree, request.build, situation, changes)
            why = f"{why} {proof}"
        return Applied(
            self.name,
            tuple(changes.done),
            verified=True,
            why=why,
            diff=diff,
            next_steps=tuple(steps),
            undo=shlex.join(["ejectable", "fix", self.name, request.target, "--undo"]) if changes.done else None,
        )

    def undo(self, situation: Situation, request: Request, changes: Changes) -> Applied:
        """Take back the last change of this tree; without a tree, the last one of all."""
        below = None if request.target is None else str(open_tree(request.target, _fix(situation)).top)
        return undone(self.name, changes.undo(self.name, below=below), changes.left)

    def _build(self, tree: SourceTree, headers: str, situation: Situation, changes: Changes) -> tuple[str, list[str]]:
        """Build and judge the module; what to say of it, and how it is installed."""
        from ejectable.remedies.module_build import build

        situation.tell(f"building {tree.fix.module}.ko")
        built = build(tree, headers, situation.limits)
        if built.finding.status is Status.AFFECTED:
            raise BadInput(
                f"the module that was built from it is affected all the same: {built.finding.reason}", path=tree.given
            )
        kept = changes.folder.resolve() / "built" / f"{tree.fix.module}-{built.release}.ko"
        changes.write(str(kept), built.module)
        if built.was_run:
            said = f"The module built from it was run: {built.finding.status.replace('_', ' ')}. {built.finding.reason}"
        else:
            said = f"The module was built, but its code could not be run ({built.finding.reason}): the source decides."
        place = f"/lib/modules/{built.release}/updates/{tree.fix.module}.ko"
        renew = f"sudo update-initramfs -u -k {built.release} (Debian, Ubuntu)"
        return said, [
            "Where Secure Boot or module.sig_enforce asks for it, sign it first (scripts/sign-file of the headers).",
            f"Install it: sudo install -D -m 644 {shlex.quote(str(kept))} {place} && sudo depmod {built.release}",
            f"Renew the initramfs: {renew} or sudo dracut --force --kver {built.release} (Red Hat, SUSE)",
            "Reboot, then run `ejectable check`.",
        ]


def _own_tree(situation: Situation) -> str | None:
    """The tree that the running kernel was built from, where modules_install left a link to it."""
    release = situation.facts.running.release if situation.facts.running else None
    if not situation.root.live or not release or "/" in release:
        return None
    fix = _fix(situation)
    for link in ("source", "build"):
        path = Path(f"/lib/modules/{release}/{link}")
        try:
            if is_source_tree(path) and (path / fix.folder / fix.file).is_file():
                return str(path.resolve())
        except OSError:
            continue
    return None


def _fix(situation: Situation) -> SourceFix:
    """The repair of the first advisory that has one; raises `WrongUsage` where none has."""
    found = next((one.source_fix for one in situation.advisories.values() if one.source_fix is not None), None)
    if found is None:
        raise WrongUsage("None of these advisories knows how to repair a source tree.")
    return found


def _steps(given: str) -> list[str]:
    top = shlex.quote(given)
    return [
        f"Build the kernel and install it: make -C {top} -j$(nproc) && sudo make -C {top} modules_install install",
        "Reboot into it, then run `ejectable check`.",
    ]
