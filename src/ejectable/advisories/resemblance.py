# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a name may be another one that somebody typed or a program read from a picture: `vp_de1_vqs`, `vpdel_vqs`."""

from collections.abc import Iterable
from functools import lru_cache

__all__ = ["closest", "resembles"]

# What is read for what, in typefaces of consoles; each is told as its first.
CONFUSED = str.maketrans(
    {
        **dict.fromkeys("1I|!iL", "l"),
        **dict.fromkeys("OQ", "0"),
        "o": "0",
        "S": "s",
        "5": "s",
        "B": "8",
        "b": "8",
        "g": "q",
        "9": "q",
        "Z": "2",
        "z": "2",
        **dict.fromkeys("-~. \u00a0\u2013\u2014", "_"),
    }
)
# Functions of the kernel that differ by one letter by right: of virtio's other transports, and the one for one queue.
REAL = frozenset(("vp_del_vq", "vm_del_vqs", "vm_del_vq", "vu_del_vqs", "vu_del_vq"))
SHORTEST = 6  # characters of a name of which one may be wrong: below that, too many names are alike


@lru_cache(maxsize=4096)
def resembles(name: str, known: str) -> bool:
    """Whether `name` is not `known`, but is so but for what is easily confused and one mistake more.

    A mistake is a character that is wrong, lost or too many, two that changed places, or a beginning cut off at an
    underscore.
    """
    if name == known or name in REAL or len(known) < SHORTEST:
        return False
    if len(name) > 4 and known.endswith(f"_{name}"):
        return True  # behind a blank that was an underscore
    return _one_off(_plain(name), _plain(known))


def closest(name: str, known: Iterable[str]) -> str | None:
    """The first of `known` that `name` resembles, or `None`."""
    return next((one for one in known if resembles(name, one)), None)


def _plain(name: str) -> str:
    return name.replace("rn", "m").replace("vv", "w").translate(CONFUSED).lower()


def _one_off(name: str, known: str) -> bool:
    """Whether one insertion, deletion, substitution or transposition, or none, makes one of the other."""
    if abs(len(name) - len(known)) > 1:
        return False
    at = next((at for at, (one, other) in enumerate(zip(name, known, strict=False)) if one != other), None)
    if at is None:
        return True
    mine, theirs = name[at:], known[at:]
    if mine[1:] == theirs[1:] or mine == theirs[1:] or mine[1:] == theirs:
        return True
    return mine[:2] == theirs[1::-1] and mine[2:] == theirs[2:]
