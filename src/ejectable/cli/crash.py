# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable crash`: is this crash the defect, and what was it?"""

import click

from ejectable.cli.options import Common, choose, command
from ejectable.cli.terminal import Terminal

__all__ = ["crash"]


@command(
    examples=(
        "ejectable crash console.log",
        "dmesg | ejectable crash",
        "journalctl -k -b -1 | ejectable crash -",
        "ejectable crash /sys/fs/pstore",
        "ejectable crash --kernel /boot/vmlinuz-6.8.0-31-generic vmcore-dmesg.txt",
        "ejectable crash --format json --jobs 4 consoles/ > events.json",
    ),
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
@click.option("--all", "--verbose", "everything", is_flag=True, help="Show every event in full.")
def crash(common: Common, *, paths: tuple[str, ...], kernel: str | None, everything: bool) -> int:
    """Is this crash the defect, and what was it?

    Reads every kernel message since 3.10 and blames a function; says whether it is a known unplug defect, how sure
    that is, and why.
    """
    from ejectable.advisories import registry
    from ejectable.assess.crashes import read_all
    from ejectable.crash.inputs import sources
    from ejectable.model import EXIT_BAD_INPUT, EXIT_OK, exit_code
    from ejectable.report import document
    from ejectable.report.crash import as_document, as_text

    terminal = Terminal(common)
    advisories = choose(registry(), common.advisory)
    found = sources(list(paths) or ["-"])
    total = sum(source.size for source in found) or None
    with terminal.progress("reading logs", total) as progress:
        reading = read_all(
            found, advisories, kernel=kernel, jobs=common.jobs, limits=common.limits, done=progress.advance
        )
    if common.json:
        terminal.document(document.encode(as_document(reading)))
    else:
        text = as_text(reading, colour=terminal.colour, width=terminal.width, everything=everything, quiet=common.quiet)
        terminal.print(*text)
    for error in reading.errors:
        terminal.error(error.message, error.hint)
    damaged = bool(reading.errors)
    code = exit_code([reading.status] if reading.judgements or not damaged else [], damaged=damaged)
    if code == EXIT_OK and damaged:
        code = EXIT_BAD_INPUT
    if code == EXIT_BAD_INPUT and all(error.exit_code != EXIT_BAD_INPUT for error in reading.errors):
        code = max(error.exit_code for error in reading.errors)  # nothing is damaged: a file is not there, say
    return common.leave(code)
