# SPDX-License-Identifier: GPL-2.0-or-later
"""A git tree that holds the upstream fix already: can it be cherry-picked? Asked without touching the tree.

Git obeys the configuration of the repository it looks at: what that may run (a file system monitor, hooks, filters,
transports for objects that lack) is switched off, for the tree may be anybody's; and git runs as its owner.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from ejectable.advisories import registry
from ejectable.errors import EjectableError
from ejectable.intake import Directory, Root
from ejectable.model import Status
from ejectable.remedies.acting import acting_as
from ejectable.remedies.commands import Finished, run, which
from ejectable.remedies.source_tree import SourceTree
from ejectable.remedies.workspace import workspace

__all__ = ["CherryPick", "cherry_pick"]

ASK_S = 3.0
MAX_SOURCE = 4 << 20
QUIET = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.sshCommand=false", "protocol.allow=never")
ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}


class CherryPick(msgspec.Struct, frozen=True):
    """The upstream fix in a tree's objects. `branch` is a remote one that has it, where one does."""

    commit: str
    branch: str | None
    applies: bool  # to the files as they are now, which are fixed then

    @property
    def words(self) -> str:
        """What to say of it."""
        where = f"on {self.branch}" if self.branch else "among the objects of this repository"
        how = "applies here, and repairs it" if self.applies else "does not apply here as it is"
        return f"The upstream fix {self.commit[:12]} is {where}; it {how}."


def cherry_pick(tree: SourceTree) -> CherryPick | None:
    """The fix that the repository holds, mainline's or a stable branch's; `None` where git has none, or is silent."""
    fixes = [fix.id for fix in registry()[tree.fix.advisory].facts.commits if fix.role.startswith("fixed") and fix.id]
    with acting_as(tree.owner):
        return _found(tree, fixes)


def _found(tree: SourceTree, fixes: Sequence[str]) -> CherryPick | None:
    if which("git") is None or not (tree.top / ".git").exists():
        return None
    found = []
    for fix in fixes:
        try:
            if _git(tree.top, "cat-file", "-e", f"{fix}^{{commit}}").ok:
                found.append(CherryPick(fix, _branch(tree.top, fix), _applies(tree, fix)))
        except EjectableError:  # too slow to ask
            continue
    return next((one for one in found if one.applies), found[0] if found else None)


def _git(folder: Path, *arguments: str, **environment: str) -> Finished:
    settings = [word for setting in QUIET for word in ("-c", setting)]
    argv = ["git", *settings, "--no-pager", "-C", str(folder), *arguments]
    return run(argv, timeout_s=ASK_S, env={**ENVIRONMENT, **environment})


def _branch(folder: Path, commit: str) -> str | None:
    form = "--format=%(refname:lstrip=2)"
    try:
        done = _git(folder, "for-each-ref", f"--contains={commit}", "--count=9", form, "refs/remotes")
    except EjectableError:
        return None
    return next((name for name in done.out.split() if not name.endswith("/HEAD")), None) if done.ok else None


def _applies(tree: SourceTree, commit: str) -> bool:
    """Whether the commit's change of the driver applies to a copy of its files, and they are fixed then."""
    fix = tree.fix
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
    patch = _git(tree.top, "diff-tree", "-p", *plain, f"{commit}^", commit, "--", fix.folder)
    if not patch.ok or not patch.out:
        return False
    with workspace("patch") as aside:
        copy = Path(aside.name) / "tree"
        source = Root(tree.top)
        with Directory.make(copy / fix.folder) as folder:
            for name in fix.files:
                if source.is_file(f"{fix.folder}/{name}"):
                    folder.write(name, source.content(f"{fix.folder}/{name}", MAX_SOURCE), lasting=False)
        aside.write("patch", patch.out.encode(), lasting=False)
        if not _git(copy, "apply", "-p1", f"{aside.name}/patch", GIT_CEILING_DIRECTORIES=aside.name).ok:
            return False
        after = fix.read(copy)
        return after is not None and after.status is Status.FIXED
