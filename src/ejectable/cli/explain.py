# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable explain`: what does this word or advisory mean?"""

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal

__all__ = ["explain"]


def _topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  (click's)
    from ejectable.advisories import registry
    from ejectable.report.topics import all_topics, plain

    # Hyphens for blanks: the shell takes a name for one word then, and it is the same to us.
    names = [topic.name.replace(" ", "-") for topic in all_topics(registry())]
    return [name for name in names if plain(name).startswith(plain(incomplete))]


@command(
    examples=(
        "ejectable explain",
        "ejectable explain suspend",
        "ejectable explain admin virtqueue",
        "ejectable explain 69",
        "ejectable explain legacy --format json | jq -r '.topic.see[]'",
    ),
    without=("no_cache", "jobs", "max_unpacked", "exit_zero"),
)
@click.argument(
    "topic",
    nargs=-1,
    metavar="[TOPIC]",
    shell_complete=_topics,
    help="A term, a word of this tool's, an exit code or an advisory; none: the list of topics.",
)
def explain(common: Common, *, topic: tuple[str, ...]) -> int:
    """What does this word or advisory mean?

    A few plain sentences, and the command that shows it on this machine. Capitals do not matter, nor whether words are
    joined by blanks, hyphens or underscores. It looks at nothing and changes nothing.
    """
    from ejectable.advisories import choose
    from ejectable.model import EXIT_OK
    from ejectable.report import document
    from ejectable.report.explain import as_document, as_text
    from ejectable.report.topics import all_topics, find

    terminal = Terminal(common)
    advisories = choose(common.advisory or ("all",))
    topics = all_topics(advisories)
    found = find(" ".join(topic), topics) if topic else None
    advisory = advisories.get(found.name) if found else None
    if common.json:
        terminal.document(document.encode(as_document(topics, found, advisory)))
    else:
        terminal.print(
            *as_text(topics, found, advisory, colour=terminal.colour, width=terminal.width, quiet=common.quiet)
        )
    return EXIT_OK
