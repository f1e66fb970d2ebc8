# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns option values into cases, and names those that QEMU or the kernel cannot do, with the reason."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import msgspec

from ejectable.errors import WrongUsage
from ejectable.lab.case import AXES, Case
from ejectable.lab.devices import KINDS
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.machines import ARCHES

__all__ = ["Plan", "Skipped", "plan", "values"]

# What the kernel must have for a trigger, and for its devices to come and go on a machine: after any other trigger,
# too, QEMU takes the device back and plugs a new one.
TRIGGER_OPTIONS = {
    "acpi-eject": "CONFIG_HOTPLUG_PCI_ACPI",
    "pcie-hotplug": "CONFIG_HOTPLUG_PCI_PCIE",
    "shpc": "CONFIG_HOTPLUG_PCI_SHPC",
    "suspend": "CONFIG_SUSPEND",
}
MACHINE_OPTIONS = {
    "pc": "CONFIG_HOTPLUG_PCI_ACPI",
    "q35": "CONFIG_HOTPLUG_PCI_ACPI",
    "virt": "CONFIG_HOTPLUG_PCI_PCIE",
}
OWN_WAY = ("pcie-hotplug", "shpc")  # triggers that leave the machine's own way out of it
# The function that a virtio_pci has with CONFIG_VIRTIO_PCI_LEGACY (drivers/virtio/virtio_pci_legacy.c).
LEGACY_PROBE = b"virtio_pci_legacy_probe"


class Skipped(msgspec.Struct, frozen=True):
    """A case that is not tried, and why."""

    case: Case
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """What will be tried, and what will not."""

    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...]

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Each reason once, with the number of cases that it rules out."""
        counts: dict[str, int] = {}
        for skipped in self.skipped:
            counts[skipped.reason] = counts.get(skipped.reason, 0) + 1
        return list(counts.items())


def values(axis: str, text: str) -> tuple[str, ...]:
    """What an option's value asks for: a word of the axis, several with commas, or `all`. Raises `WrongUsage`."""
    offered = AXES[axis]
    if text.strip() == "all":
        return offered
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if word not in offered:
            raise WrongUsage(
                f"--{axis} knows no {word!r}.", hint=f"It is one of {', '.join(offered)}; several with commas, or all."
            )
    if not words:
        raise WrongUsage(f"--{axis} was given nothing.", hint=f"It is one of {', '.join(offered)}, or all.")
    return words


def plan(kernel: GuestKernel, axes: Mapping[str, Sequence[str]]) -> Plan:
    """Every combination of the values asked for, those that can be done apart from those that cannot."""
    cases: list[Case] = []
    skipped: list[Skipped] = []
    for machine, device, mode, trigger, panic, busy in product(
        axes["machine"], axes["device"], axes["mode"], axes["trigger"], axes["panic-on-oops"], axes["io"]
    ):
        case = Case(machine, device, mode, trigger, int(panic), busy == "busy")
        reason = _impossible(kernel, case)
        if reason is None:
            cases.append(case)
        else:
            skipped.append(Skipped(case, reason))
    return Plan(tuple(cases), tuple(skipped))


def _impossible(kernel: GuestKernel, case: Case) -> str | None:
    """Why a case cannot be tried, or `None`."""
    return _not_in_qemu(kernel, case) or _not_in_kernel(kernel, case)


def _not_in_qemu(kernel: GuestKernel, case: Case) -> str | None:
    arch = ARCHES[case.machine]
    if arch != kernel.arch:
        return f"the machine {case.machine} runs {arch} kernels, and this one is for {kernel.arch}"
    if case.machine == "pc" and case.trigger == "pcie-hotplug":
        return "the machine pc has no PCIe: q35 has"
    if case.machine == "virt" and case.trigger == "acpi-eject":
        return "the machine virt is started without firmware, so that its kernel has no ACPI to eject with"
    if case.device == "vsock":
        if case.mode != "modern":
            return "QEMU's vhost-vsock-pci has the modern interface only"
        if not Path("/dev/vhost-vsock").exists():
            return "this host has no /dev/vhost-vsock (modprobe vhost_vsock)"
    if case.under_io and case.device == "vsock":
        return "there is no I/O to keep a vsock busy with"
    return None


def _not_in_kernel(kernel: GuestKernel, case: Case) -> str | None:
    kind = KINDS[case.device]
    option = TRIGGER_OPTIONS.get(case.trigger)
    if option and kernel.features.has(option) is False:
        return f"this kernel is built without {option}"
    option = MACHINE_OPTIONS[case.machine]
    if case.trigger not in OWN_WAY and kernel.features.has(option) is False:
        return f"this kernel is built without {option}, by which devices come and go on {case.machine}"
    modules = kernel.modules
    for name in ("virtio_pci", kind.module):
        if name in modules or name in modules.builtin:
            continue
        if modules.builtin_known:
            return f"this kernel has no {name}, or its package does not hold it"
        if kernel.features.has_driver(name) is False:
            return f"{name} is not built into this kernel, and no module of that name is beside it (--modules)"
    if case.trigger == "module-unload" and kind.module not in modules:
        return f"{kind.module} is built into this kernel: it cannot be unloaded"
    if case.driven == "legacy" and not _drives_legacy(kernel):
        return "this kernel cannot drive legacy devices (CONFIG_VIRTIO_PCI_LEGACY is not set)"
    return None


def _drives_legacy(kernel: GuestKernel) -> bool:
    """Whether virtio_pci has its legacy half, as far as can be told; the module knows best."""
    if "virtio_pci" in kernel.modules:
        return LEGACY_PROBE in kernel.modules.load("virtio_pci").content
    return kernel.features.has("CONFIG_VIRTIO_PCI_LEGACY") is not False
