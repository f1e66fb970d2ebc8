# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable lab`: what happens when it is really unplugged?"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from ejectable.cli.options import Common, WordList, command
from ejectable.cli.terminal import Terminal

__all__ = ["lab"]


def _axis(
    name: str, metavar: str, description: str, *, default: str | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The option of one axis of the matrix: a word, several with commas, or `all`; the words are completed."""

    def words() -> tuple[str, ...]:
        from ejectable.lab.case import AXES

        return AXES[name]

    return click.option(
        f"--{name}",
        metavar=metavar,
        type=WordList(words),
        default=default,
        show_default=default is not None,
        help=description,
    )


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@command(
    examples=(
        "ejectable lab linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb",
        "ejectable lab --mode all --trigger acpi-eject,sysfs-remove --jobs 2 PACKAGE.deb",
        "ejectable lab --modules ./faulty --panic-on-oops all --verdict PACKAGE.deb",
        "ejectable lab --machine q35 --trigger pcie-hotplug --device nic vmlinuz-with-drivers-built-in",
        "ejectable lab --busybox busybox-static_1.35.0_arm64.deb linux-image-6.1.0-50-arm64.deb",
    )
)
@click.argument(
    "kernel",
    metavar="KERNEL",
    type=click.Path(readable=False),
    help="A package (.deb, .rpm), an image, or a directory with boot and lib/modules.",
)
@click.option(
    "--modules",
    metavar="DIR",
    type=click.Path(readable=False),
    help="Modules that go before KERNEL's own: a directory, or a package.",
)
@_axis("device", "D", "disk, nic, scsi, rng, balloon, console, vsock; else as the --advisory needs it, or a disk.")
@_axis("mode", "M", "legacy, modern, transitional, forced-legacy; else as the --advisory needs it, or legacy.")
@_axis(
    "trigger",
    "T",
    "acpi-eject (x86-64's default), pcie-hotplug (arm64's), shpc, sysfs-remove, pci-unbind, virtio-unbind, "
    "module-unload, suspend.",
)
@_axis("machine", "Q", "pc (x86-64's default), q35, virt (arm64).")
@_axis("panic-on-oops", "P", "0, 1.", default="0")
@click.option(
    "--accel",
    metavar="A",
    type=WordList(lambda: ("auto", "kvm", "tcg")),
    default="auto",
    show_default=True,
    help="auto, kvm, tcg.",
)
@_axis("io", "I", "idle, busy: whether the device works meanwhile.", default="idle")
@click.option(
    "--repeat",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="Cycles of unplugging and plugging in a run.",
)
@click.option(
    "--insmod",
    metavar="FILE",
    type=click.Path(readable=False),
    multiple=True,
    help="Load this module too, behind the drivers; may be repeated.",
)
@click.option(
    "--busybox", metavar="FILE", type=click.Path(readable=False), help="A static busybox, or a Debian package with one."
)
@click.option(
    "--evidence",
    metavar="DIR",
    type=click.Path(readable=False),
    help="Where transcripts go; else a new folder for temporary files.",
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(5, 86400),
    default=180.0,
    show_default=True,
    help="Give up on a kernel that has not booted by then.",
)
@click.option("--verdict", is_flag=True, help="Judge the kernel's code as well, and say whether both agree.")
def lab(
    common: Common,
    *,
    kernel: str,
    modules: str | None,
    device: str | None,
    mode: str | None,
    trigger: str | None,
    machine: str | None,
    panic_on_oops: str,
    accel: str,
    io: str,
    repeat: int,
    insmod: tuple[str, ...],
    busybox: str | None,
    evidence: str | None,
    timeout: float,
    verdict: bool,
) -> int:
    """What happens when it is really unplugged? Boots the kernel in QEMU.

    Each of --device, --mode, --trigger, --machine, --panic-on-oops and --io takes a word, several with commas, or
    `all`: every combination is tried that QEMU and the kernel can do, the others are named.
    """
    from ejectable.advisories import choose
    from ejectable.cli.lab_table import LiveTable
    from ejectable.lab.request import Request, perform
    from ejectable.model import exit_code
    from ejectable.report import document
    from ejectable.report.lab import as_document, as_text

    for number in (signal.SIGTERM, signal.SIGHUP):  # the session does the same while guests run
        signal.signal(number, _leave)
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
        insmod=insmod,
        busybox=busybox,
        evidence=evidence,
        boot_s=timeout,
        verdict=verdict,
        advisories=tuple(choose(common.advisory)),
        named=bool(common.advisory),
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
    return common.leave(exit_code([answer.status]))
