# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable check`: would this machine crash if a virtio device were unplugged now?"""

import click

from ejectable.cli.options import Common, choose, command
from ejectable.cli.terminal import Terminal

__all__ = ["check"]


@command(
    examples=(
        "ejectable check",
        "sudo ejectable check --verbose",
        "ejectable check --root /mnt/image",
        "ejectable check --format json | jq -r .status",
        "ejectable check --quiet || mail -s 'do not detach disks' ops@example.org < /dev/null",
    ),
    without=("jobs",),
)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(readable=False),
    default="/",
    help="Look at a mounted image or a captured tree instead.",
)
@click.option("--verbose", "-v", is_flag=True, help="Show every device, evidence and note.")
@click.option("--explain", is_flag=True, help="With --format json: the disassembly and the story of the run as well.")
def check(common: Common, *, root: str, verbose: bool, explain: bool) -> int:
    """Would this machine crash if a virtio device were unplugged now?

    It looks at every virtio device and how it is driven, at the code of the kernel that runs (found on disk by its
    build-id, or in memory as root), and at what the machine does after an Oops. It changes nothing.
    """
    from ejectable import host
    from ejectable.advisories import registry
    from ejectable.assess.machine import assess
    from ejectable.assess.running_kernel import find
    from ejectable.assess.verdicts import Verdicts
    from ejectable.model import exit_code
    from ejectable.report import document
    from ejectable.report.check import as_document, as_text

    terminal = Terminal(common)
    advisories = choose(registry(), common.advisory)
    tree = host.Root(root)
    with terminal.progress("reading this machine"):
        facts = host.read(tree)
        # Without --explain the story of the run is not shown: a kept verdict will do, and holds it anyway.
        running_kernel = find(tree, facts, advisories, common.limits, Verdicts(enabled=common.cache))
        assessment = assess(facts, running_kernel, advisories)
    if common.json:
        terminal.document(document.encode(as_document(assessment, explain=explain)))
    else:
        terminal.print(
            *as_text(assessment, colour=terminal.colour, width=terminal.width, verbose=verbose, quiet=common.quiet)
        )
    return common.leave(exit_code([assessment.status]))
