# SPDX-License-Identifier: GPL-2.0-or-later
"""The answer of `ejectable explain`: a topic, an advisory's whole story, or the list of topics."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Annotated

import msgspec
from msgspec import Meta

from ejectable.advisories import Advisory
from ejectable.advisories.facts import Facts
from ejectable.advisories.terms import Story, Topic
from ejectable.model import Status
from ejectable.report.document import Document, join, tag
from ejectable.report.text import bullets, columns, paint, wrap

__all__ = ["ExplainDocument", "as_document", "as_text"]

LIST_WIDTH = 80
RANK = ("fixed", "not_affected", "unknown")


class Explained(Facts, frozen=True, kw_only=True):
    """What is known of a defect; each fact names its source."""

    story: Annotated[Story | None, Meta(description="The same in words, a paragraph each.")]


class Entry(msgspec.Struct, frozen=True):
    """One line of the list of topics."""

    name: str
    group: str
    brief: str


class ExplainDocument(Document, frozen=True, kw_only=True, tag=tag("explain")):
    """`ejectable explain`: what does this word or advisory mean? Its status is `unknown`: nothing was looked at."""

    topic: Annotated[Topic | None, Meta(description="What was asked for; null for the list.")] = None
    advisory: Annotated[Explained | None, Meta(description="Where the topic is an advisory; else null.")] = None
    topics: Annotated[tuple[Entry, ...], Meta(description="Every topic; empty where one was asked for.")] = ()


def as_document(topics: Sequence[Topic], topic: Topic | None, advisory: Advisory | None) -> ExplainDocument:
    """The document. Its status is always `unknown`: nothing was looked at, and a safe word would be a claim."""
    if topic is None:
        summary = f"{len(topics)} topics; `ejectable explain TOPIC` explains one."
        steps: Sequence[str] = ()
    else:
        summary, steps = f"{topic.name}: {topic.brief}", _next_steps(topic, advisory)
    return ExplainDocument(
        status=Status.UNKNOWN,
        summary=summary,
        next_steps=tuple(steps),
        topic=topic,
        advisory=None if advisory is None else join(Explained, advisory.facts, story=advisory.terms.story),
        topics=tuple(join(Entry, one) for one in topics) if topic is None else (),
    )


def as_text(
    topics: Sequence[Topic], topic: Topic | None, advisory: Advisory | None, *, colour: bool, width: int, quiet: bool
) -> list[str]:
    """The list, one line a topic; or the topic, the answer first; with `quiet` no more than its one line."""
    if topic is None:
        return _list(topics, colour=colour)
    if quiet:
        return wrap(f"{topic.name}: {topic.brief}", width=width)
    if advisory is not None:
        return _story(advisory, topics, colour=colour, width=width)
    lines = [f"{paint(topic.name, 'bold', colour=colour)}  {topic.brief}", "", *wrap(topic.text, width=width)]
    if topic.see:
        lines += ["", "See it on this machine:", *(f"    {command}" for command in topic.see)]
    if topic.related:
        lines += ["", *wrap(f"See also: {', '.join(topic.related)}", width=width, rest="  ")]
    return lines


def _next_steps(topic: Topic, advisory: Advisory | None) -> Sequence[str]:
    if advisory is None:
        return tuple(f"To see it on this machine: {command}" for command in topic.see)
    return (
        "Run `ejectable check` to see whether this machine is concerned.",
        "Run `ejectable fix` for the remedies, the best one for this machine first.",
    )


def _list(topics: Sequence[Topic], *, colour: bool) -> list[str]:
    lines: list[str] = []
    for group in dict.fromkeys(topic.group for topic in topics):
        named = [topic for topic in topics if topic.group == group]
        room = LIST_WIDTH - 4 - max(len(topic.name) for topic in named)
        rows = [(topic.name, shorten(topic.brief, room, placeholder=" ...")) for topic in named]
        lines += [*([""] if lines else []), paint(group.capitalize(), "bold", colour=colour), *columns(rows)]
    return lines


def _story(advisory: Advisory, topics: Sequence[Topic], *, colour: bool, width: int) -> list[str]:
    facts, story = advisory.facts, advisory.terms.story
    lines = [f"{paint(facts.id, 'bold', colour=colour)}  {facts.title}", "", *wrap(facts.summary.strip(), width=width)]

    def chapter(title: str, body: Sequence[str]) -> None:
        lines.extend(["", paint(title, "bold", colour=colour), *body])

    if story is not None:
        chapter("Cause", wrap(story.cause, width=width, first="  "))
        chapter("What happens", wrap(story.consequence, width=width, first="  "))
        chapter("What is concerned", wrap(story.scope, width=width, first="  "))
        chapter("What sets it off", wrap(story.triggers, width=width, first="  "))
    chapter("Commits", _commits(facts, width=width))
    chapter("Releases", _releases(facts, width=width))
    if story is not None:
        lines += wrap(story.versions, width=width, first="  ")
    chapter("Distributions", _packages(facts))
    chapter("Not to be confused with", _look_alikes(facts, width=width))
    remedies = [topic for topic in topics if topic.group == "remedies" and topic.name != "states of a remedy"]
    chapter("Remedies", columns([(topic.name, topic.brief) for topic in remedies]))
    chapter("References", [f"  {one.title}\n    {one.url}" for one in facts.references])
    chapter("What to do", bullets(_next_steps(topics[0], advisory), width=width, numbered=True))
    return lines


def _commits(facts: Facts, *, width: int) -> list[str]:
    lines: list[str] = []
    for commit in facts.commits:
        release = f", in {commit.release}" if commit.release else ""
        head = f"{commit.role}{release}: {commit.subject}"
        lines += wrap(f"{head} ({commit.id})" if commit.id else head, width=width, first="  - ")
    return lines


def _releases(facts: Facts, *, width: int) -> list[str]:
    said = []
    for one in facts.releases:
        line = f"the {one.branch} branch" if one.branch else "mainline"
        until = f"fixed in {one.fixed}" if one.fixed else "never fixed"
        said.append(f"{line}: since {one.introduced}, {until}")
    return bullets(said, width=width)


def _packages(facts: Facts) -> list[str]:
    """A table of the packages that distributions speak of, and where that was read."""
    rows = [
        (
            " ".join(filter(None, (one.distribution, one.release))),
            one.package,
            f"fixed in {one.fixed}" if one.fixed else one.status.replace("_", " "),
        )
        for one in sorted(facts.packages, key=lambda one: (one.distribution, one.release or "", RANK.index(one.status)))
    ]
    sources = dict.fromkeys(one.source for one in facts.packages)
    return [*columns(rows), *(f"  Source: {source}" for source in sources)]


def _look_alikes(facts: Facts, *, width: int) -> list[str]:
    said = []
    for one in facts.look_alikes:
        where = f"in {one.ip}" if one.ip else f"under {one.under}"
        said.append(f"{one.id}: {one.title} ({one.kind} {where}; {one.versions})")
    return bullets(said, width=width)
