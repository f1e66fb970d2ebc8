# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable lab`: what happens when it is really unplugged?"""

from typing import Annotated

import typer

from ejectable.cli.options import Common, choose, command_app, examples, with_common
from ejectable.cli.terminal import Terminal

__all__ = ["app", "lab"]

app = command_app()


@app.command(
    epilog=examples(
        "ejectable lab linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb",
        "ejectable lab --mode all --trigger acpi-eject,sysfs-remove --jobs 2 PACKAGE.deb",
        "ejectable lab --modules ./faulty --panic-on-oops all --verdict PACKAGE.deb",
        "ejectable lab --machine q35 --trigger pcie-hotplug --device nic vmlinuz-with-drivers-built-in",
        "ejectable lab --busybox busybox-static_1.35.0_arm64.deb linux-image-6.1.0-50-arm64.deb",
    )
)
@with_common
def lab(
    kernel: Annotated[
        str,
        typer.Argument(
            metavar="KERNEL", help="A package (.deb, .rpm), an image, or a directory with boot and lib/modules."
        ),
    ],
    *,
    modules: Annotated[
        str | None,
        typer.Option(
            "--modules", metavar="DIR", help="Modules that go before KERNEL's own: a directory, or a package."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="D", help="disk, nic, scsi, rng, balloon, console, vsock.")
    ] = "disk",
    mode: Annotated[
        str, typer.Option("--mode", metavar="M", help="legacy, modern, transitional, forced-legacy.")
    ] = "legacy",
    trigger: Annotated[
        str | None,
        typer.Option(
            "--trigger",
            metavar="T",
            help="acpi-eject (x86-64's default), pcie-hotplug (arm64's), shpc, sysfs-remove, pci-unbind, "
            "virtio-unbind, module-unload, suspend.",
        ),
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", metavar="Q", help="pc (x86-64's default), q35, virt (arm64).")
    ] = None,
    panic_on_oops: Annotated[str, typer.Option("--panic-on-oops", metavar="P", help="0, 1.")] = "0",
    accel: Annotated[str, typer.Option("--accel", metavar="A", help="auto, kvm, tcg.")] = "auto",
    io: Annotated[
        str, typer.Option("--io", metavar="I", help="idle, busy: whether the device works meanwhile.")
    ] = "idle",
    repeat: Annotated[
        int,
        typer.Option("--repeat", metavar="N", min=1, max=100_000, help="Cycles of unplugging and plugging in a run."),
    ] = 1,
    insmod: Annotated[
        list[str] | None,
        typer.Option("--insmod", metavar="FILE", help="Load this module too, behind the drivers; may be repeated."),
    ] = None,
    busybox: Annotated[
        str | None, typer.Option("--busybox", metavar="FILE", help="A static busybox, or a Debian package with one.")
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option("--evidence", metavar="DIR", help="Where transcripts go; else a new folder for temporary files."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="S", min=5, max=86400, help="Give up on a kernel that has not booted by then."
        ),
    ] = 180.0,
    verdict: Annotated[
        bool, typer.Option("--verdict", help="Judge the kernel's code as well, and say whether both agree.")
    ] = False,
    common: Common,
) -> int:
    """What happens when it is really unplugged? Boots the kernel in QEMU.

    Each of --device, --mode, --trigger, --machine, --panic-on-oops and --io takes a word, several with commas, or
    `all`: every combination is tried that QEMU and the kernel can do, the others are named.
    """
    from ejectable.advisories import registry
    from ejectable.assess.proof import status_of
    from ejectable.cli.lab_table import LiveTable
    from ejectable.lab.request import Request, perform
    from ejectable.model import exit_code
    from ejectable.report import document
    from ejectable.report.lab import as_document, as_text

    terminal = Terminal(common)
    request = Request(
        kernel=kernel,
        modules=modules,
        axes={
            "device": device,
            "mode": mode,
            "trigger": trigger,
            "machine": machine,
            "panic-on-oops": panic_on_oops,
            "io": io,
        },
        accel=accel,
        repeat=repeat,
        insmod=tuple(insmod or ()),
        busybox=busybox,
        evidence=evidence,
        boot_s=timeout,
        verdict=verdict,
        advisories=tuple(choose(registry(), common.advisory)),
        jobs=common.jobs,
        limits=common.limits,
        cache=common.cache,
    )
    with LiveTable(terminal) as table:
        answer = perform(request, planned=table.planned, stage=table.stage, finished=table.finished)
    if common.json:
        terminal.document(document.encode(as_document(answer)))
    else:
        terminal.print(*as_text(answer, colour=terminal.colour, width=terminal.width, quiet=common.quiet))
    statuses = [*(status_of(run) for run in answer.runs), answer.status]
    return common.leave(exit_code(statuses))
