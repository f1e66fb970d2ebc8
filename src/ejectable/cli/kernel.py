# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable kernel`: does this kernel carry the defect?"""

import os

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal
from ejectable.errors import WrongUsage

__all__ = ["kernel"]

EXIT_FAULT = 70


@command(
    examples=(
        "ejectable kernel /boot/vmlinuz-6.8.0-31-generic",
        "ejectable kernel --explain linux-image-6.1.0-28-amd64_6.1.119-1_amd64.deb",
        "ejectable kernel --jobs 4 --format json *.rpm > verdicts.json",
        "ejectable kernel /lib/modules/6.8.0-31-generic/kernel/drivers/virtio/virtio_pci.ko.zst",
        "ejectable kernel ~/src/linux",
    ),
    without=("no_cache",),
)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(readable=False),
    help="A kernel image (vmlinuz, Image, vmlinux, zboot, UKI, uImage, FIT, Android), virtio_pci.ko, a .deb or .rpm, "
    "an initramfs, a folder, or a kernel source tree; - is standard input. Packages of one kernel, and an initramfs "
    "beside it, are read together.",
)
@click.option("--explain", is_flag=True, help="Show the disassembly and the story of the run as well.")
def kernel(common: Common, *, paths: tuple[str, ...], explain: bool) -> int:
    """Does this kernel carry the defect?

    The kernel's own code is run, in a sandbox, against objects laid out by its own types; what it does then is the
    proof. No version number decides anything.
    """
    from ejectable.advisories import choose
    from ejectable.assess.kernels import DEBUG, judge_paths, status_of
    from ejectable.model import EXIT_BAD_INPUT, exit_code
    from ejectable.report import document
    from ejectable.report.kernel import as_document, as_text

    if "" in paths:
        raise WrongUsage("An empty path names no kernel.", hint="Is a variable not set? `.` is the current folder.")
    if common.debug:
        os.environ[DEBUG] = "1"
    terminal = Terminal(common)
    ids = tuple(choose(common.advisory))
    with terminal.progress("reading kernels", len(paths)) as progress:
        judged = list(
            judge_paths(paths, ids, common.limits, jobs=common.jobs, done=lambda path: progress.advance(label=path))
        )
    errors = [error for one in judged for error in one.unreadable]
    if common.json:
        terminal.document(document.encode(as_document(judged, explain=explain)))
    else:
        terminal.print(
            *as_text(judged, colour=terminal.colour, width=terminal.width, explain=explain, quiet=common.quiet)
        )
    for error in errors:
        terminal.error(error.error, error.hint)
    statuses = [status_of(report) for one in judged for report in one.kernels]
    code = exit_code(statuses, damaged=bool(errors))
    if code == EXIT_BAD_INPUT:
        # A fault of ours outranks damage, and damage what is only not there.
        codes = {error.exit_code for error in errors}
        code = next(worst for worst in (EXIT_FAULT, EXIT_BAD_INPUT, *codes) if worst in codes)
    return common.leave(code)
