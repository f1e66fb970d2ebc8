# SPDX-License-Identifier: GPL-2.0-or-later
"""The words that `ejectable explain` knows: the tool's own, from the files beside this one, and the advisories'."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources

from ejectable.advisories import Advisory
from ejectable.advisories.terms import Topic, load_terms
from ejectable.errors import WrongUsage

__all__ = ["ADVISORIES", "all_topics", "find", "plain"]

FILES = ("kernel.toml", "remedies.toml", "words.toml")
ADVISORIES = "advisories"  # the group of the topics that tell a whole story
# In the order of the list: what a reader of the list looks for first.
GROUPS = (
    ADVISORIES,
    "terms",
    "status words",
    "devices",
    "remedies",
    "evidence",
    "triggers",
    "results of the lab",
    "exit codes",
)


def all_topics(advisories: Mapping[str, Advisory]) -> tuple[Topic, ...]:
    """Every topic, group by group; each advisory is one, and brings terms of its own."""
    stories = [
        Topic(name, advisory.facts.title, advisory.facts.summary.strip(), ADVISORIES, aliases=advisory.names[1:])
        for name, advisory in advisories.items()
    ]
    terms = [topic for advisory in advisories.values() for topic in advisory.terms.topics]
    return tuple(sorted([*stories, *terms, *_own()], key=lambda topic: GROUPS.index(topic.group)))


def find(wanted: str, topics: tuple[Topic, ...]) -> Topic:
    """The topic of this name, or of this other name; raises `WrongUsage` with those that are nearest."""
    by_name: dict[str, Topic] = {}
    for topic in topics:
        for name in (topic.name, *topic.aliases):
            by_name.setdefault(plain(name), topic)
    found = by_name.get(plain(wanted))
    if found is not None:
        return found
    near = [name for name in by_name if plain(wanted) and plain(wanted) in name]
    near += get_close_matches(plain(wanted), by_name, n=3, cutoff=0.6)
    names = list(dict.fromkeys(by_name[name].name for name in near))[:3]
    hint = f"Did you mean: {', '.join(names)}? " if names else ""
    raise WrongUsage(f"There is no topic {wanted[:80]!r}.", hint=f"{hint}`ejectable explain` lists them all.")


def plain(name: str) -> str:
    """A name as it is compared: no difference between capitals, or between blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]+", " ", name.removesuffix("()").casefold()).strip()


@cache
def _own() -> tuple[Topic, ...]:
    folder = resources.files(__package__)
    return tuple(topic for file in FILES for topic in load_terms((folder / file).read_bytes()).topics)
