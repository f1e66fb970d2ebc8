# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on a user's tree, done with that user's rights: what root is led to there, it is led to as them.

    owner = owner_of(top, "drivers/virtio")    # None for root's own tree
    with acting_as(owner):
        ...                                    # files and programs: the owner's rights, and no group but theirs

Only the effective identity changes, so that the way back is open and the owner can neither signal nor trace us
(kill(2), ptrace(2): both ask for the real one). Programs that are started meanwhile have no way back: see `commands`.
"""

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ejectable.errors import Denied

__all__ = ["Owner", "acting", "acting_as", "as_ourselves", "is_user", "owner_of", "owner_of_all"]

NOBODY = 65534
ONE_OWNER = "Give all of it to one user (chown -R), or run it as that user."
_acting: "Owner | None" = None


class Owner(msgspec.Struct, frozen=True):
    """A user who is not root."""

    uid: int
    gid: int

    @classmethod
    def of(cls, about: os.stat_result) -> "Owner":
        """The owner of a file, in their own group: the file's may be root's."""
        try:
            gid = pwd.getpwuid(about.st_uid).pw_gid
        except KeyError:  # a tree from another machine
            gid = about.st_gid
        return cls(about.st_uid, gid or NOBODY)


def is_user(uid: int) -> bool:
    """Whether a file of this owner may be changed by somebody who is not root, and root can work as them.

    In a user namespace all who have no number in it are shown as one (user_namespaces(7)), whom nobody can become.
    """
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return uid != 0
    spans = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    return uid != 0 and any(first <= uid < first + count for first, count in spans)


def acting() -> Owner | None:
    """As whom root works just now; `None` where it works as itself, or this is not root."""
    return _acting


@contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Work as somebody until the block ends; as before where that is `None`, or this user is not root.

    Raises `Denied` within a block for somebody else.
    """
    global _acting  # noqa: PLW0603  (the identity is the process's, so this is too)
    if owner is None or owner == _acting or os.geteuid() != 0:
        if owner is not None and _acting is not None and owner != _acting:
            raise Denied(f"Parts of it belong to user {owner.uid}, others to user {_acting.uid}.", hint=ONE_OWNER)
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    _become(owner.uid, owner.gid, [])
    _acting = owner
    try:
        yield
    finally:
        _acting = None
        _become(0, group, groups)


@contextmanager
def as_ourselves() -> Iterator[None]:
    """Within `acting_as`: be root again until the block ends, for what is root's."""
    global _acting  # noqa: PLW0603  (as above)
    owner = _acting
    if owner is None:
        yield
        return
    _become(0, 0, [])
    _acting = None
    try:
        yield
    finally:
        _become(owner.uid, owner.gid, [])
        _acting = owner


def owner_of(top: Path, *below: str) -> Owner | None:
    """For root: whose a tree is, by its folders from `top` to each of `below` that is there; `None` where it is root's.

    For anybody else `None` too: they have no rights to lay down.

    Raises `Denied` where several users share it, where one who is not its owner may put another in its place, and
    where it is root's and anybody may write in it. `OSError` where it cannot be looked at.
    """
    places = {top}
    for name in below:
        path = top
        for part in name.split("/"):
            path /= part
            if path.is_dir():
                places.add(path)
    if os.geteuid() != 0:
        return None
    inner = [(path, path.lstat()) for path in sorted(places) if not path.is_symlink()]
    owner = owner_of_all(inner)
    for path in top.parents:  # whoever owns one on the way may put another tree in its place
        about = path.lstat()
        if is_user(about.st_uid) and (owner is None or about.st_uid != owner.uid):
            raise Denied(f"{path}, which it is in, belongs to user {about.st_uid}.", hint=ONE_OWNER)
    if owner is None:
        for path, about in inner:
            if about.st_mode & stat.S_IWOTH:
                raise Denied(f"{path} is root's, and anybody may write in it.", hint="chmod -R o-w it first.")
    return owner


def owner_of_all(places: Iterable[tuple[Path, os.stat_result]]) -> Owner | None:
    """The one owner of these; `None` for root. Raises `Denied` where there are several."""
    first: tuple[Path, os.stat_result] | None = None
    for path, about in places:
        if first is not None and about.st_uid != first[1].st_uid:
            raise Denied(
                f"{first[0]} belongs to user {first[1].st_uid}, {path} to user {about.st_uid}: whose tree is it?",
                hint=ONE_OWNER,
            )
        first = first or (path, about)
    return None if first is None or not is_user(first[1].st_uid) else Owner.of(first[1])


def _become(uid: int, gid: int, groups: list[int]) -> None:
    """Take an effective identity: by way of root, who alone may."""
    os.seteuid(0)
    os.setgroups(groups)
    os.setegid(gid)
    if uid:
        os.seteuid(uid)
