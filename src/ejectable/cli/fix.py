# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix`: what do I do about it, and is it done?"""

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal
from ejectable.errors import WrongUsage

__all__ = ["fix"]


def _remedies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  (click's)
    from ejectable.remedies import REMEDIES

    return [name for name in REMEDIES if name.startswith(incomplete)]


@command(
    examples=(
        "ejectable fix                              # the plan for this machine; changes nothing",
        "ejectable fix upgrade                      # what the newest kernel package would do",
        "sudo ejectable fix upgrade --apply         # ... and install it",
        "sudo ejectable fix live --apply            # repair the running kernel, without a reboot",
        "sudo ejectable fix live --undo",
        "ejectable fix source-patch ~/src/linux     # show the patch; --apply makes it",
        "sudo ejectable fix panic-policy --apply    # while it stays affected",
        "ejectable fix --root /mnt/image --format json",
    ),
    without=("jobs",),
)
@click.argument(
    "remedy",
    required=False,
    metavar="[REMEDY]",
    shell_complete=_remedies,
    help="upgrade, force-legacy, instance-type, live, source-patch, detach-while-stopped or panic-policy; none: the "
    "whole plan.",
)
@click.argument(
    "target",
    required=False,
    metavar="[TREE]",
    type=click.Path(readable=False),
    help="With source-patch: the kernel source tree.",
)
@click.option("--apply", is_flag=True, help="Carry the remedy out, and verify it.")
@click.option("--undo", is_flag=True, help="Take the remedy back.")
@click.option("--offline", is_flag=True, help="Ask nothing over the network.")
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(readable=False),
    default="/",
    help="Plan for a mounted image or a captured tree instead.",
)
@click.option("--persist", is_flag=True, help="With live: after a reboot too, through DKMS.")
@click.option(
    "--build",
    metavar="HEADERS",
    type=click.Path(readable=False),
    help="With source-patch: build and judge virtio_pci.ko as well.",
)
@click.option("--to", metavar="TYPE", help="With instance-type: this type.")
@click.option("--instance", metavar="ID", help="With the cloud's remedies: this instance.")
@click.option("--region", metavar="ID", help="With the cloud's remedies: this region.")
@click.option("--device", metavar="NAME", help="With detach-while-stopped: vdb, virtio1 or a disk's id.")
@click.option("--verbose", "-v", is_flag=True, help="Show what was found out for each remedy.")
def fix(
    common: Common,
    *,
    remedy: str | None,
    target: str | None,
    apply: bool,
    undo: bool,
    offline: bool,
    root: str,
    persist: bool,
    build: str | None,
    to: str | None,
    instance: str | None,
    region: str | None,
    device: str | None,
    verbose: bool,
) -> int:
    """What do I do about it, and is it done?

    Without --apply it changes nothing: it prints a plan for this machine, the best remedy first, and for each what it
    costs, whether it is possible here, and the commands. What --apply does is recorded, and --undo takes it back.
    """
    from ejectable import host
    from ejectable.advisories import choose
    from ejectable.model import EXIT_OK, Status, exit_code
    from ejectable.remedies import Request, Situation, execute
    from ejectable.report import document
    from ejectable.report.fix import Answer, as_document, as_text

    if apply and undo:
        raise WrongUsage("--apply and --undo are opposites.", hint="Give one of them.")
    if (apply or undo) and remedy is None:
        raise WrongUsage("Which remedy?", hint="`ejectable fix` shows the plan; then `ejectable fix REMEDY --apply`.")
    request = Request(
        target=target, persist=persist, build=build, to=to, instance=instance, region=region, device=device
    )
    terminal = Terminal(common)
    with terminal.progress("reading this machine") as progress:
        situation = Situation(
            host.Root(root),
            choose(common.advisory),
            limits=common.limits,
            offline=offline,
            cache=common.cache,
            tell=lambda label: progress.advance(0, label),
        )
        if remedy is not None:
            execute.named(situation, remedy).check_options(request)
        if remedy is not None and (apply or undo):
            applied = (execute.apply if apply else execute.undo)(situation, remedy, request)
            after = situation.again()
            answer = Answer(execute.status(after, remedy, request), applied.why, (), applied, undone=undo)
            # What was done but could not be verified is never nothing to fear.
            code = EXIT_OK if applied.verified else exit_code([answer.status, Status.UNKNOWN])
        else:
            plan = execute.plan(situation, request, (remedy,) if remedy else ())
            status = execute.status(situation, remedy, request)
            # A tree or another instance was asked about: this machine's own state is no answer to that.
            asked_of_another = target is not None or (instance is not None and remedy is not None)
            about = plan[0].why if asked_of_another else situation.assessment.summary
            notes = execute.left_open(situation)
            answer = Answer(status, about, plan, notes=notes, one=remedy is not None, needed=situation.needed)
            code = exit_code([status])
    if common.json:
        terminal.document(document.encode(as_document(answer)))
    else:
        terminal.print(
            *as_text(answer, colour=terminal.colour, width=terminal.width, verbose=verbose, quiet=common.quiet)
        )
    return common.leave(code)
