# SPDX-License-Identifier: GPL-2.0-or-later
"""Words and what they mean, as data: an advisory's terms.toml, and the files of the tool's own words."""

from typing import TypeVar

import msgspec

__all__ = ["Story", "Terms", "Topic", "load_terms", "stripped"]

T = TypeVar("T", bound=msgspec.Struct)


class Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One word, explained."""

    name: str
    brief: str  # in one line
    text: str
    group: str = "terms"
    aliases: tuple[str, ...] = ()
    see: tuple[str, ...] = ()  # commands that show it on this machine; they change nothing
    related: tuple[str, ...] = ()  # names of other topics


class Story(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an advisory is about, a paragraph each."""

    cause: str
    consequence: str
    scope: str
    triggers: str
    versions: str


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that one file holds."""

    topics: tuple[Topic, ...]
    story: Story | None = None


def stripped(entry: T) -> T:
    """The same entry without white space around its texts."""
    texts = {name: value.strip() for name in entry.__struct_fields__ if isinstance(value := getattr(entry, name), str)}
    return msgspec.structs.replace(entry, **texts)


def load_terms(data: bytes) -> Terms:
    """The terms of a TOML file; texts lose the white space around them."""
    terms = msgspec.toml.decode(data, type=Terms)
    return Terms(tuple(map(stripped, terms.topics)), terms.story and stripped(terms.story))
