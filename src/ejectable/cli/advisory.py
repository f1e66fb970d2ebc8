# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable advisory check`: is an advisory fit for use?"""

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal

__all__ = ["advisory"]

EXIT_FAULTY = 65


@command(
    examples=(
        "ejectable advisory check my-advisory/",
        "ejectable advisory check my-advisory/ --kernel affected.deb --kernel fixed.deb",
    ),
    without=("format", "advisory", "advisories", "no_cache", "jobs", "exit_zero"),
)
@click.argument("action", type=click.Choice(("check",)), help="check: look for what is wrong with it.")
@click.argument("folder", metavar="DIR", type=click.Path(readable=False), help="Its folder; or one with several.")
@click.option(
    "--kernel",
    "kernels",
    metavar="PATH",
    multiple=True,
    type=click.Path(readable=False),
    help="Run its experiment on this kernel, and tell the story; may be repeated.",
)
def advisory(common: Common, *, action: str, folder: str, kernels: tuple[str, ...]) -> int:
    """Is an advisory of your own fit for use?

    Its facts must be complete and cited, and its parts declared. On a kernel that is given, its experiment must come
    to the same twice, and decide by runs that differ; it is run where there are no files and no network. DIR holds
    code that is run.
    """
    from ejectable.advisories import add_folders, added_folders, registry
    from ejectable.assess.advisory_check import examine, faults
    from ejectable.report.text import bullets, wrap

    del action
    known = set(registry()) if folder not in added_folders() else set()
    add_folders([folder])
    terminal = Terminal(common)
    faulty = False
    for name, one in registry().items():
        if name in known:
            continue
        found = list(faults(one))
        lines = wrap(f"{name}  {one.title}", width=terminal.width, rest="  ")
        for path in kernels:
            for seen in examine(one, path, common.limits):
                found += seen.faults
                lines += ["", *wrap(f"{seen.kernel}: {seen.status}. {seen.reason}", width=terminal.width, first="  ")]
                lines += [f"    {line}" for line in seen.story]
        faulty = faulty or bool(found)
        said = bullets(found, width=terminal.width) if found else ["  Nothing is wrong with it."]
        terminal.print(*lines, "", *said)
    return EXIT_FAULTY if faulty else 0
