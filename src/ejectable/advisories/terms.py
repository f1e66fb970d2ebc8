# SPDX-License-Identifier: GPL-2.0-or-later
"""Words and what they mean, as data: an advisory's terms.toml, and the files of the tool's own words."""

import msgspec

__all__ = ["Story", "Terms", "Topic", "load_terms"]


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


def load_terms(data: bytes) -> Terms:
    """The terms of a TOML file; texts lose the white space around them."""
    terms = msgspec.toml.decode(data, type=Terms)
    topics = tuple(msgspec.structs.replace(topic, text=topic.text.strip()) for topic in terms.topics)
    story = terms.story
    if story is not None:
        story = Story(**{name: text.strip() for name, text in msgspec.structs.asdict(story).items()})
    return Terms(topics, story)
