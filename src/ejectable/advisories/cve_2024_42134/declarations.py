# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel declares of itself: its types, its symbols, its configuration."""

import re

from ejectable.kernel import Program, Types
from ejectable.kernel.config import Config
from ejectable.kernel.program import Member
from ejectable.model import Evidence, EvidenceKind, Justification, Status

__all__ = ["NO_LEGACY_DRIVER", "absent", "callback", "config", "drives_legacy", "member_at", "symbols", "types"]

# The signature that the callback was introduced with. A vendor may have called the member otherwise.
CUT_OFF = re.compile(r"(?<!\{)\.\.\.(?!\})")  # in a type that was too long to be spelled; "{...}" has no name
ASKS = re.compile(r"(?:_Bool|bool) \(\*\)\(struct virtio_device ?\*, unsigned int\)")

# Claims: what was seen, for code that compares.
NO_CALLBACK, HAS_CALLBACK, NO_LEGACY_DRIVER, NO_DRIVER = (
    "no-callback", "has-callback", "no-legacy-driver", "no-driver"
)  # fmt: skip
# Static functions that the modern driver's table of operations points to, so that no compiler drops them.
ALSO_STATIC = ("vp_get_status", "vp_set_status", "vp_reset", "vp_get_features")
DRIVER, LEGACY_DRIVER = "CONFIG_VIRTIO_PCI", "CONFIG_VIRTIO_PCI_LEGACY"
# drivers/virtio/Kconfig: what both depend on, each by itself. VIRTIO_MENU is of v5.1.
MENUS = ("CONFIG_VIRTIO_MENU", "CONFIG_PCI")
LEGACY = ("virtio_pci_legacy_probe", "virtio_pci_legacy_remove", "vp_legacy_probe", "vp_legacy_get_status",
          "vp_legacy_get_features", "vp_legacy_set_queue_address")  # fmt: skip


def types(program: Program) -> Evidence | None:
    """Whether struct virtio_pci_device has the member; having it does not tell whether it is tested."""
    struct = program.types.struct("virtio_pci_device") if program.types else None
    if struct is None or program.types is None:
        return None
    source = program.types.source.upper()
    member = callback(program.types)
    if member is None and any(CUT_OFF.search(member.type_name) for member in struct.members):
        detail = f"struct virtio_pci_device has no member is_avq, and a member whose type could not be read ({source})"
        return Evidence(EvidenceKind.TYPES, Status.UNKNOWN, detail)
    if member is None:
        detail = f"struct virtio_pci_device has no member is_avq ({source})"
        return Evidence(EvidenceKind.TYPES, Status.NOT_AFFECTED, detail, claim=NO_CALLBACK)
    detail = (
        f"struct virtio_pci_device has the member {member.name} at {member.offset:#x} ({source}): the admin queue is"
        " there"
    )
    return Evidence(EvidenceKind.TYPES, Status.UNKNOWN, detail, member=member.name, claim=HAS_CALLBACK)


def drives_legacy(program: Program) -> bool:
    """Whether there is a legacy driver. It may have been inlined; what it works with is exported, and stays.

    drivers/virtio/virtio_pci_legacy_dev.c since v5.16: vp_legacy_probe() and its like. A module takes them from
    elsewhere, so that they are among its symbols too.
    """
    return any(program.symbols.function(name) for name in LEGACY)


def callback(known: Types | None) -> Member | None:
    """The member that asks whether a queue is the admin queue: by its name, else by its signature."""
    struct = known.struct("virtio_pci_device") if known else None
    if struct is None:
        return None
    named = [member for member in struct.members if member.name == "is_avq"]
    return next(iter(named or [member for member in struct.members if ASKS.fullmatch(member.type_name)]), None)


def member_at(known: Types | None, name: str, offset: int) -> str | None:
    """The dotted path of the member of a struct that `offset` lies in, "vdev.features"; `None` if no type tells."""
    struct, prefix, start, path = (known.struct(name) if known else None), "", 0, None
    while struct is not None and known is not None:
        inside = [m for m in struct.members if start + m.offset <= offset < start + m.offset + max(m.size, 1)]
        if not inside:
            break
        member = inside[0]
        path = f"{prefix}{member.name}" if member.name else prefix.rstrip(".")
        start += member.offset
        deeper = member.type_name.removeprefix("struct ")
        struct = known.struct(deeper) if deeper != member.type_name and "*" not in deeper else None
        prefix = f"{path}."
    return f"{path}+{offset - start:#x}" if path and offset != start else path


def symbols(program: Program) -> Evidence | None:
    """The functions that came with the admin queue, and the legacy driver.

    vp_is_avq() is what the callback points to in every kernel that has it, so it cannot be inlined away.
    """
    table = program.symbols
    if table.function("virtio_pci_modern_probe") is None:
        return None
    if not drives_legacy(program):
        detail = "there is no virtio_pci_legacy_probe: this kernel cannot drive a legacy device"
        return Evidence(
            EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail,
            claim=NO_LEGACY_DRIVER, justification=Justification.NOT_REACHED,
        )  # fmt: skip
    if table.function("vp_is_avq") is None:
        # `strip --discard-all` takes static functions away: a table without any tells nothing by lacking this one.
        if not any(table.function(name) for name in ALSO_STATIC):
            return None
        detail = "there is no vp_is_avq: the admin queue was never introduced"
        return Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail, claim=NO_CALLBACK)
    return Evidence(
        EvidenceKind.SYMBOLS, Status.UNKNOWN, "vp_is_avq is there: the admin queue was introduced", claim=HAS_CALLBACK
    )


def absent(vmlinux: Program | None, options: Config | None) -> Evidence | None:
    """That there is no driver at all: not in the image, and the configuration builds no module of it.

    Each alone proves nothing: the driver may be a module, and a configuration may be another build's. The symbols of
    an image name every function that is not inlined; the driver's probe is called through a pointer.
    """
    if vmlinux is None or not options or options.says(DRIVER, *MENUS) != "n":
        return None
    if vmlinux.symbols.function("start_kernel") is None or vmlinux.symbols.variants("virtio_pci_probe"):
        return None
    detail = "virtio_pci_probe() is not in the image, and the configuration has CONFIG_VIRTIO_PCI off"
    return Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail, claim=NO_DRIVER)


def config(options: Config | None, program: Program | None = None) -> Evidence | None:
    """CONFIG_VIRTIO_PCI and CONFIG_VIRTIO_PCI_LEGACY; `None` where there is no configuration.

    A configuration that switches off what is there in `program` belongs to another kernel.
    """
    if not options:
        return None
    driver, legacy = (options.says(name, *MENUS) for name in (DRIVER, LEGACY_DRIVER))
    if program is not None and (driver == "n" or (legacy == "n" and drives_legacy(program))):
        off = DRIVER if driver == "n" else LEGACY_DRIVER
        detail = f"{off} is off in the configuration, and yet its code is there: it is another kernel's"
        return Evidence(EvidenceKind.CONFIG, Status.UNKNOWN, detail)
    if driver == "n":
        return Evidence(EvidenceKind.CONFIG, Status.NOT_AFFECTED, f"{DRIVER} is off", claim=NO_DRIVER)
    if driver is not None and legacy == "n":
        detail = f"{LEGACY_DRIVER} is off: this kernel cannot drive a legacy device"
        return Evidence(
            EvidenceKind.CONFIG, Status.NOT_AFFECTED, detail,
            claim=NO_LEGACY_DRIVER, justification=Justification.NOT_REACHED,
        )  # fmt: skip
    said = [f"{name}={value}" if value else f"{name} is not named" for name, value in
            ((DRIVER, driver), (LEGACY_DRIVER, legacy))]  # fmt: skip
    return Evidence(EvidenceKind.CONFIG, Status.UNKNOWN, ", ".join(said))
