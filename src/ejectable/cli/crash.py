# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable crash`: is this crash the defect, and what was it?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal

if TYPE_CHECKING:
    from ejectable.advisories import Advisory

__all__ = ["crash"]


@command(
    examples=(
        "ejectable crash console.log",
        "dmesg | ejectable crash",
        "journalctl -k -b -1 | ejectable crash -",
        "ejectable crash /sys/fs/pstore",
        "ejectable crash --kernel /boot/vmlinuz-6.8.0-31-generic vmcore-dmesg.txt",
        "dmesg --follow | ejectable crash --follow",
        "ejectable crash --follow --format jsonl /dev/kmsg",
        "ejectable crash --format json --jobs 4 consoles/ > events.json",
    ),
    formats=("text", "json", "jsonl"),
    without=("no_cache",),
)
@click.argument(
    "paths",
    nargs=-1,
    metavar="[PATH...]",
    type=click.Path(readable=False),
    help="dmesg, a serial console, a journal (text, JSON, export), syslog, netconsole, vmcore-dmesg.txt, pstore parts, "
    "an ECS GetInstanceConsoleOutput answer; compressed too; a directory; - or nothing: standard input.",
)
@click.option(
    "--kernel",
    metavar="FILE",
    type=click.Path(readable=False),
    help="The kernel that crashed: its own code joins the verdict.",
)
@click.option(
    "--follow", is_flag=True, help="Read on as the log grows (standard input, a file, /dev/kmsg); Ctrl-C ends it."
)
@click.option("--all", "--verbose", "everything", is_flag=True, help="Show every event in full.")
def crash(common: Common, *, paths: tuple[str, ...], kernel: str | None, everything: bool, follow: bool) -> int:
    """Is this crash the defect, and what was it?

    Reads every kernel message since 3.10 and blames a function; says whether it is a known unplug defect, how sure
    that is, and why.
    """
    from ejectable.advisories import choose
    from ejectable.assess.crashes import read_all
    from ejectable.assess.logs import sources
    from ejectable.model import EXIT_BAD_INPUT, EXIT_OK, exit_code
    from ejectable.report import document
    from ejectable.report.crash import as_document, as_text, event_document

    terminal = Terminal(common)
    advisories = choose(common.advisory)
    if follow:
        return common.leave(_follow(list(paths) or ["-"], advisories, terminal))
    found = sources(list(paths) or ["-"])
    total = sum(source.size for source in found) or None
    with terminal.progress("reading logs", total) as progress:
        reading = read_all(
            found, advisories, kernel=kernel, jobs=common.jobs, limits=common.limits, done=progress.advance
        )
    if common.format == "jsonl":
        for event, said in reading.pairs:
            terminal.document(document.encode(event_document(event, said), indent=0))
        for doubt in reading.suspicious:
            terminal.error(doubt.detail)
    elif common.json:
        terminal.document(document.encode(as_document(reading)))
    else:
        text = as_text(reading, colour=terminal.colour, width=terminal.width, everything=everything, quiet=common.quiet)
        terminal.print(*text)
    for error in reading.errors:
        terminal.error(error.message, error.hint)
    damaged = bool(reading.errors)
    decided = bool(reading.judgements or reading.suspicious) or not damaged
    code = exit_code([reading.status] if decided else [], damaged=damaged)
    if code == EXIT_OK and damaged:
        code = EXIT_BAD_INPUT
    if code == EXIT_BAD_INPUT and all(error.exit_code != EXIT_BAD_INPUT for error in reading.errors):
        code = max(error.exit_code for error in reading.errors)  # nothing is damaged: a file is not there, say
    return common.leave(code)


def _follow(paths: list[str], advisories: Mapping[str, "Advisory"], terminal: Terminal) -> int:
    """Show each event of a log that grows; the exit code is what they add up to when it ends, or Ctrl-C ends it."""
    from ejectable.assess.crashes import Reading, doubt_of_end, follow_all
    from ejectable.errors import Ended, WrongUsage
    from ejectable.model import Doubt, Event, Judgement, Status, exit_code
    from ejectable.report import document
    from ejectable.report.crash import as_document, as_text, event_document

    if len(paths) != 1:
        raise WrongUsage("--follow reads one log at a time.", hint="Run it once for each, or join them: tail -F A B |")
    pairs: list[tuple[Event, Judgement]] = []
    statuses = {Status.NOT_AFFECTED}
    common = terminal.common
    doubts: tuple[Doubt, ...] = ()
    try:
        for event, said in follow_all(paths[0], advisories):
            statuses.add(said.status)
            if common.format == "jsonl":
                terminal.document(document.encode(event_document(event, said), indent=0))
            elif common.json:
                pairs.append((event, said))
            else:
                one = Reading((paths[0],), (event,), (said,))
                text = as_text(one, colour=terminal.colour, width=terminal.width, quiet=common.quiet)
                terminal.print(*text, *([] if common.quiet else [""]))
    except KeyboardInterrupt:
        pass  # that is how it ends
    except Ended as ended:
        statuses.add(Status.UNKNOWN)
        doubts = (doubt_of_end(paths[0], ended),)
        terminal.error(ended.message, ended.hint)
    if common.json:
        events, judgements = tuple(event for event, _ in pairs), tuple(said for _, said in pairs)
        terminal.document(document.encode(as_document(Reading((paths[0],), events, judgements, suspicious=doubts))))
    return exit_code(statuses)
