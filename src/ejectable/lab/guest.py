# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a guest's initramfs and kernel command line, and reads its answers."""

from collections.abc import Sequence
from importlib import resources

import msgspec

from ejectable.lab.busybox import APPLETS
from ejectable.lab.case import Case
from ejectable.lab.devices import KINDS
from ejectable.lab.initramfs import Initramfs
from ejectable.lab.kernels import GuestKernel
from ejectable.lab.machines import ARCHES, console_of
from ejectable.lab.modules import Module, needed

__all__ = ["View", "build", "command_line", "drivers_of", "parse_view"]

# The transport's modules, for kernels that have them as modules.
TRANSPORT = ("virtio_pci",)
# Found by the guest's own alias or class on a real system; here there is no udev to do it.
HOTPLUG = {"shpc": ("shpchp",), "acpi-eject": ("acpiphp",), "pcie-hotplug": ("pciehp",)}
FORCE_LEGACY = "force_legacy=1"


class View(msgspec.Struct, frozen=True):
    """One virtio PCI device as the guest sees it."""

    address: str  # 0000:00:06.0
    device: str  # PCI device id, 0x1001
    bound: bool  # to the PCI driver virtio-pci
    name: str | None  # virtio0
    version_1: bool | None  # feature bit 32: driven as modern; None before the driver is at work
    driver: str | None  # virtio_blk

    @property
    def ready(self) -> bool:
        """Whether every driver that there is took it, and is at work."""
        return self.bound and self.name is not None and self.driver is not None and self.version_1 is not None


def parse_view(words: str) -> tuple[View, ...]:
    """The answer to `see`; what is not understood is left out."""
    seen = []
    for word in words.split():
        fields = word.split(",")
        if len(fields) == 6:
            address, device, bound, name, bit, driver = fields
            version_1 = bit == "1" if bit in ("0", "1") else None
            seen.append(View(address, device, bound == "1", name or None, version_1, driver or None))
    return tuple(seen)


def drivers_of(case: Case) -> tuple[str, ...]:
    """The modules that a case wants loaded, where they are modules."""
    kind = KINDS[case.device]
    return (*HOTPLUG.get(case.trigger, ()), *TRANSPORT, kind.module, *kind.extra_modules)


def build(
    kernel: GuestKernel, case: Case, busybox: bytes, extra: Sequence[Module] = (), carried: Sequence[Module] = ()
) -> bytes:
    """The initramfs for one case; `extra` modules are loaded behind the drivers, `carried` ones when it is told to."""
    root = Initramfs()
    root.file("init", (resources.files("ejectable.lab") / "init.sh").read_bytes(), executable=True)
    root.file("bin/busybox", busybox, executable=True)
    for applet in APPLETS:
        root.link(f"bin/{applet}", "busybox")
    for folder in ("proc", "sys", "nodes"):
        root.folder(folder)
    # For the moment before devtmpfs is there, and for kernels without it. 1:11 is /dev/kmsg.
    tty, number, _ = console_of(ARCHES[case.machine])
    root.device("dev/console", 5, 1)
    root.device("dev/null", 1, 3)
    root.device("dev/kmsg", 1, 11)
    root.device(f"dev/{tty}", *number)
    lines = []
    for module in (*needed(kernel.modules, drivers_of(case)), *extra):
        root.file(f"modules/{module.name}.ko", module.content)
        forced = f" {FORCE_LEGACY}" if module.name == "virtio_pci" and case.mode == "forced-legacy" else ""
        lines.append(f"{module.name}.ko{forced}\n")
    for module in carried:
        root.file(f"modules/{module.name}.ko", module.content)
    root.file("modules/load", "".join(lines).encode())
    return root.image


def command_line(case: Case, token: str, *, wordy: bool = False) -> str:
    """The kernel's command line (Documentation/admin-guide/kernel-parameters.txt), as short as it can be.

    What can be set in a running kernel, init.sh sets: on a busy host, kernels were seen to die while ACPI was set up,
    and only with many words. `wordy` has it speak as early and as much as it can: for one that does not boot.
    """
    arch = ARCHES[case.machine]
    tty, _, early = console_of(arch)
    # To stand still in a panic: the last lines are what we want, then QEMU is ended.
    words = [f"console={tty},115200", "panic=0"]
    if wordy or arch == "aarch64":  # whose console comes late: until then its silence would look like death
        words.append(early)
    if wordy:
        words.append("ignore_loglevel")
    if arch == "x86_64":
        # A busy host lets the emulated timer's first ticks come late, and the kernel panics over it ("IO-APIC + timer
        # doesn't work!": one boot in some dozens with six processes for each core). Under KVM it leaves that test out
        # by itself.
        words.append("no_timer_check")
    if case.mode == "forced-legacy":
        words.append(f"virtio_pci.{FORCE_LEGACY}")
    # What the kernel does not know becomes the environment of init (init/main.c, unknown_bootoption).
    words += [f"EJECTABLE={token}", f"EJECTABLE_PANIC={case.panic_on_oops}", f"EJECTABLE_TTY={tty}"]
    return " ".join(words)
