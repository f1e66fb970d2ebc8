# SPDX-License-Identifier: GPL-2.0-or-later
"""An advisory's facts.toml: what is known of a defect, as data. The words follow OSV where OSV has one.

Nothing here decides: versions support or contradict what was found in the code.
"""

import msgspec

from ejectable.advisories.terms import Story, Topic, stripped
from ejectable.confine import data_of

__all__ = ["Commit", "Facts", "FixedPackage", "LookAlike", "Reference", "Release", "load_facts"]


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit that introduced or repaired the defect."""

    role: str  # introduced, fixed, fixed-stable, redesigned
    subject: str
    source: str
    id: str | None = None  # 40 hex digits, where it is known
    release: str | None = None  # the first release that has it: "6.8"


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of upstream releases: from `introduced`, up to but without `fixed`."""

    introduced: str
    source: str
    fixed: str | None = None
    branch: str | None = None  # "6.9": a stable branch, and not mainline


class FixedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution's source package and the first version of it that carries the fix."""

    distribution: str
    package: str
    status: str  # fixed, not_affected, unknown
    source: str
    fixed: str | None = None  # for `fixed` only
    release: str | None = None  # "noble"


class LookAlike(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another defect whose crash may be taken for this one."""

    id: str
    title: str
    ip: str  # the function that the instruction pointer is in
    under: str  # a function of the trace
    kind: str  # an event's kind
    versions: str
    source: str
    # How it is known; the fields above say the same to a person.
    at: str  # a pattern of the function that faulted, or of one of the innermost
    needs: tuple[str, ...]  # patterns; a function of each must stand in the trace
    kinds: tuple[str, ...]  # kinds of event
    told: str  # how a crash of it is told, as a phrase
    fix: str  # "fixed in 6.10 by 89875151fccd (...)"


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to read more."""

    type: str  # OSV's: ADVISORY, ARTICLE, FIX, INTRODUCED, REPORT, WEB
    url: str
    title: str


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it."""

    id: str
    title: str
    summary: str
    file: str
    function: str
    commits: tuple[Commit, ...]
    releases: tuple[Release, ...]
    references: tuple[Reference, ...]
    packages: tuple[FixedPackage, ...] = ()
    look_alikes: tuple[LookAlike, ...] = ()
    name: str | None = None  # a short one beside the CVE: "vq-wrong-index"
    # For `explain`: the story of the defect, and the terms that it needs.
    story: Story | None = None
    topics: tuple[Topic, ...] = ()

    def commit(self, role: str) -> Commit | None:
        """The first commit of this role."""
        return next((commit for commit in self.commits if commit.role == role), None)


def load_facts(package: str) -> Facts:
    """The facts of the advisory in `package`."""
    facts = msgspec.toml.decode(data_of(package, "facts.toml"), type=Facts)
    return msgspec.structs.replace(
        facts, topics=tuple(map(stripped, facts.topics)), story=facts.story and stripped(facts.story)
    )
