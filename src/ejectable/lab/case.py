# SPDX-License-Identifier: GPL-2.0-or-later
"""The axes of the matrix with their values (option values of `ejectable lab`), and one combination of them."""

from typing import Literal

import msgspec

from ejectable.model import RunResult

__all__ = ["AXES", "DEVICES", "GUEST_SIDE", "IO", "MACHINES", "MODES", "PANICS", "TRIGGERS", "Case", "Result"]

DEVICES = ("disk", "nic", "scsi", "rng", "balloon", "console", "vsock")
MODES = ("legacy", "modern", "transitional", "forced-legacy")
TRIGGERS = (
    "acpi-eject",
    "pcie-hotplug",
    "shpc",
    "sysfs-remove",
    "pci-unbind",
    "virtio-unbind",
    "module-unload",
    "suspend",
)
MACHINES = ("pc", "q35", "virt")
PANICS = ("0", "1")
IO = ("idle", "busy")
# Option → its values; the first one is what is tried when nothing is asked for, but for the machine, which
# depends on the kernel's architecture.
AXES = {"device": DEVICES, "mode": MODES, "trigger": TRIGGERS, "machine": MACHINES, "panic-on-oops": PANICS, "io": IO}
# Triggers that are pulled inside the guest; the others are a request from outside.
GUEST_SIDE = frozenset({"sysfs-remove", "pci-unbind", "virtio-unbind", "module-unload", "suspend"})

Result = RunResult


class Case(msgspec.Struct, frozen=True, order=True):
    """One combination: a machine, a device, how it is driven, and how it is taken away."""

    machine: str
    device: str = "disk"
    mode: str = "legacy"
    trigger: str = "acpi-eject"
    panic_on_oops: int = 0
    under_io: bool = False
    properties: tuple[tuple[str, str], ...] = ()  # of the device in QEMU, beside those that it has anyway

    @property
    def name(self) -> str:
        """A name for a folder: every axis, in the order of the table."""
        io = "-io" if self.under_io else ""
        return f"{self.machine}-{self.device}-{self.mode}-{self.trigger}-panic{self.panic_on_oops}{io}"

    @property
    def driven(self) -> Literal["legacy", "modern"]:
        """How a kernel that can do both will drive the device: what counts, not what it could be."""
        return "legacy" if self.mode in ("legacy", "forced-legacy") else "modern"
