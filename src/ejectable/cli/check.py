# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable check`: would this machine crash if a virtio device were unplugged now?"""

import os

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal

__all__ = ["check"]


@command(
    examples=(
        "ejectable check",
        "sudo ejectable check --verbose",
        "ejectable check --root /mnt/image",
        "ejectable check --quiet --root trees/web-1 --root trees/web-2",
        "ejectable check --format json | jq -r .status",
        "ejectable check --quiet || mail -s 'do not detach disks' ops@example.org < /dev/null",
    ),
    without=("jobs",),
)
@click.option(
    "--root",
    "roots",
    metavar="DIR",
    type=click.Path(readable=False),
    multiple=True,
    help="Look at a mounted image or a captured tree instead; may be repeated.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show every device, evidence and note.")
@click.option("--explain", is_flag=True, help="With --format json: the disassembly and the story of the run as well.")
def check(common: Common, *, roots: tuple[str, ...], verbose: bool, explain: bool) -> int:
    """Would this machine crash if a virtio device were unplugged now?

    It looks at every virtio device and how it is driven, at the code of the kernel that runs (found on disk by its
    build-id, or in memory as root), and at what the machine does after an Oops. It changes nothing.
    """
    from ejectable.advisories import choose
    from ejectable.assess.checked import check_roots, code_of
    from ejectable.assess.kernels import DEBUG
    from ejectable.assess.verdicts import Verdicts
    from ejectable.report import document
    from ejectable.report.check import as_document, as_text

    if common.debug:
        os.environ[DEBUG] = "1"
    terminal = Terminal(common)
    advisories = choose(common.advisory)
    # Without --explain the story of the run is not shown: a kept verdict will do, and holds it anyway.
    verdicts = Verdicts(enabled=common.cache)
    with terminal.progress("reading this machine", len(roots) if len(roots) > 1 else None) as progress:
        checked = list(
            check_roots(
                roots or ("/",), advisories, common.limits, verdicts, done=lambda root: progress.advance(label=root)
            )
        )
    if common.json:
        terminal.document(document.encode(as_document(checked, explain=explain)))
    else:
        terminal.print(
            *as_text(checked, colour=terminal.colour, width=terminal.width, verbose=verbose, quiet=common.quiet)
        )
    for one in checked:
        if one.error:
            terminal.error(one.error.error, one.error.hint)
    return common.leave(code_of(checked))
