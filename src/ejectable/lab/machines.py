# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for a case: the machine, the slot that the device sits in, the device itself.

Property names are those of `qemu-system-... -device MODEL,help`; which hotplug mechanism answers is chosen by the
properties of the machine, see docs/lab.md.
"""

import json
from typing import Any

import msgspec

from ejectable.lab.case import Case
from ejectable.lab.devices import KINDS
from ejectable.model import Arch

__all__ = ["ARCHES", "MEMORY_MIB", "PROGRAMS", "Parts", "Slot", "command_line", "console_of", "parts", "slot_of"]

PROGRAMS: dict[Arch, str] = {"x86_64": "qemu-system-x86_64", "aarch64": "qemu-system-aarch64"}
ARCHES: dict[str, Arch] = {"pc": "x86_64", "q35": "x86_64", "virt": "aarch64"}
MEMORY_MIB = 384
DISK_BYTES = 64 << 20

# The two switches of QEMU that make ACPI answer for bridges (on), or leave a bridge to its own mechanism (off).
_ACPI_BRIDGES = {
    "pc": "PIIX4_PM.acpi-pci-hotplug-with-bridge-support",
    "q35": "ICH9-LPC.acpi-pci-hotplug-with-bridge-support",
}


class Slot(msgspec.Struct, frozen=True):
    """Where the device sits: QEMU's bus and slot, and the bridges that must be there for it."""

    bus: str
    address: str
    bridges: tuple[str, ...] = ()  # values of -device


def slot_of(case: Case) -> Slot:
    """The slot of a case's device; the same one is used for the device that replaces it."""
    if case.trigger == "shpc":
        if case.machine == "pc":
            return Slot("bridge", "0x1", ("pci-bridge,id=bridge,bus=pci.0,addr=0x5,chassis_nr=1,shpc=on",))
        return Slot("bridge", "0x1", ("pcie-pci-bridge,id=bridge,bus=pcie.0,addr=0x5",))
    if case.machine == "pc":
        return Slot("pci.0", "0x6")
    # io-reserve: a legacy device has an I/O window, for which firmware leaves no room behind a root port unasked.
    return Slot("rootport", "0x0", ("pcie-root-port,id=rootport,bus=pcie.0,addr=0x5,chassis=1,slot=1,io-reserve=4k",))


def console_of(arch: Arch) -> tuple[str, tuple[int, int], str]:
    """The guest's serial console: its name, its device number, and what makes it speak before its driver does."""
    if arch == "aarch64":
        return "ttyAMA0", (204, 64), "earlycon"
    return "ttyS0", (4, 64), "earlyprintk=ttyS0,115200"


class Parts(msgspec.Struct, frozen=True):
    """One device with all that belongs to it, as QMP commands know it."""

    identity: str  # of the device in QEMU
    backend: tuple[str, dict[str, Any]] | None  # the command that makes what stands behind it
    devices: tuple[dict[str, Any], ...]  # the device first, then what hangs on it

    @property
    def arguments(self) -> list[str]:
        """The same for a command line."""
        arguments = []
        if self.backend is not None:
            command, values = self.backend
            if command == "blockdev-add":
                arguments = ["-blockdev", json.dumps(values)]
            elif command == "netdev_add":
                arguments = ["-netdev", "user,id={id},restrict=on".format_map(values)]
            else:
                arguments = ["-chardev", "ringbuf,id={id},size=4096".format_map(values)]
        for device in self.devices:
            arguments += ["-device", json.dumps(device)]
        return arguments


def parts(case: Case, generation: int) -> Parts:
    """The device of a case; each one that is plugged is a generation of its own."""
    kind = KINDS[case.device]
    slot = slot_of(case)
    identity, backend = f"device{generation}", f"backend{generation}"
    properties: dict[str, Any] = {"driver": kind.model, "id": identity, "bus": slot.bus, "addr": slot.address}
    # The words of docs/specs of virtio-pci: legacy = no modern interface, modern = no legacy one. A transitional
    # device has both; "forced-legacy" is one, and it is the guest that is told to drive it as legacy.
    if case.device != "vsock":  # which has the modern interface only
        properties["disable-legacy"] = "on" if case.mode == "modern" else "off"
        properties["disable-modern"] = case.mode == "legacy"
    properties.update(kind.properties)
    # In JSON a property of type bool takes no "on".
    properties.update({name: {"on": True, "off": False}.get(value, value) for name, value in case.properties})
    made: tuple[str, dict[str, Any]] | None = None
    hanging: tuple[dict[str, Any], ...] = ()
    if case.device in ("disk", "scsi"):
        # A disk of zeroes that swallows what is written: no image, no host path.
        disk = {"driver": "null-co", "node-name": backend, "size": DISK_BYTES, "read-zeroes": True}
        made = ("blockdev-add", disk)
    if case.device == "disk":
        properties["drive"] = backend
    elif case.device == "scsi":
        hanging = ({"driver": "scsi-hd", "id": f"{identity}-disk", "bus": f"{identity}.0", "drive": backend},)
    elif case.device == "nic":
        properties["netdev"] = backend
        # "restrict": nothing leaves it, not even to the host; it answers the guest's ping by itself.
        made = ("netdev_add", {"type": "user", "id": backend, "restrict": True})
    elif case.device == "rng":
        properties["rng"] = "entropy"
    elif case.device == "console":
        made = ("chardev-add", {"id": backend, "backend": {"type": "ringbuf", "data": {"size": 4096}}})
        port = {"driver": "virtserialport", "id": f"{identity}-port", "bus": f"{identity}.0", "chardev": backend}
        hanging = ({**port, "name": "ejectable"},)
    return Parts(identity, made, (properties, *hanging))


def command_line(
    case: Case,
    *,
    accelerator: str,
    kernel: str,
    initramfs: str,
    append: str,
    console_fd: int,
    qmp_fd: int,
    page_kib: int = 4,
    plugged: bool = True,
) -> list[str]:
    """The whole command line, the first device included where `plugged`. `kernel` and `initramfs` are paths."""
    arch = ARCHES[case.machine]
    native = case.trigger in ("pcie-hotplug", "shpc")
    machine = [case.machine]
    cpu = []
    if arch == "aarch64":
        # Plain ARMv8.0: what `max` adds (pointer authentication first of all) costs time to emulate. It has no
        # pages of 16 KiB, though (ID_AA64MMFR0_EL1.TGran16).
        cpu = ["-cpu", "host" if accelerator == "kvm" else "cortex-a76" if page_kib == 16 else "cortex-a72"]
        machine += ["gic-version=host" if accelerator == "kvm" else "gic-version=2"]
    else:
        machine += ["usb=off", "vmport=off", "smbus=off"]
        if case.machine == "pc" and case.trigger == "shpc":
            # Firmware of this machine never hands SHPC to the system; without ACPI nobody has to be asked.
            machine += ["acpi=off"]
    arguments = [
        PROGRAMS[arch],
        *("-name", "ejectable-lab,process=ejectable-lab"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", ",".join(machine)),
        *("-accel", "tcg,tb-size=256" if accelerator == "tcg" else accelerator),
        *cpu,
        *("-smp", "1", "-m", f"{MEMORY_MIB}M"),
        *("-chardev", f"socket,id=console,fd={console_fd}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
        *("-kernel", kernel, "-initrd", initramfs, "-append", append),
    ]
    if native and case.machine in _ACPI_BRIDGES and "acpi=off" not in machine:
        arguments += ["-global", f"{_ACPI_BRIDGES[case.machine]}=off"]
    if case.device == "rng":
        arguments += ["-object", "rng-builtin,id=entropy"]
    for bridge in slot_of(case).bridges:
        arguments += ["-device", bridge]
    return arguments + (parts(case, 0).arguments if plugged else [])
