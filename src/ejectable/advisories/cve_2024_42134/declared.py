# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel declares of itself: its types, its symbols, its configuration."""

from collections.abc import Mapping

from ejectable.kernel import Program
from ejectable.model import Evidence, EvidenceKind, Status

__all__ = ["config", "symbols", "types"]


def types(program: Program) -> Evidence | None:
    """Whether struct virtio_pci_device has the member; having it does not tell whether it is tested."""
    struct = program.types.struct("virtio_pci_device") if program.types else None
    if struct is None or program.types is None:
        return None
    source = program.types.source.upper()
    member = program.types.member("virtio_pci_device", "is_avq")
    if member is None:
        detail = f"struct virtio_pci_device has no member is_avq ({source})"
        return Evidence(EvidenceKind.TYPES, Status.NOT_AFFECTED, detail)
    detail = (
        f"struct virtio_pci_device has the member is_avq at {member.offset:#x} ({source}): the admin queue is there"
    )
    return Evidence(EvidenceKind.TYPES, Status.UNKNOWN, detail)


def symbols(program: Program) -> Evidence | None:
    """The functions that came with the admin queue, and the legacy driver.

    vp_is_avq() is what the callback points to in every kernel that has it, so it cannot be inlined away.
    """
    table = program.symbols
    if table.function("virtio_pci_modern_probe") is None:
        return None
    if table.function("virtio_pci_legacy_probe") is None:
        detail = "there is no virtio_pci_legacy_probe: this kernel cannot drive a legacy device"
        return Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail)
    if table.function("vp_is_avq") is None:
        return Evidence(
            EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, "there is no vp_is_avq: the admin queue was never introduced"
        )
    return Evidence(EvidenceKind.SYMBOLS, Status.UNKNOWN, "vp_is_avq is there: the admin queue was introduced")


def config(options: Mapping[str, str] | None) -> Evidence | None:
    """CONFIG_VIRTIO_PCI and CONFIG_VIRTIO_PCI_LEGACY; `None` where there is no configuration."""
    if not options:
        return None
    driver, legacy = options.get("CONFIG_VIRTIO_PCI", "n"), options.get("CONFIG_VIRTIO_PCI_LEGACY", "n")
    if driver == "n":
        return Evidence(EvidenceKind.CONFIG, Status.NOT_AFFECTED, "CONFIG_VIRTIO_PCI is off")
    if legacy == "n":
        detail = "CONFIG_VIRTIO_PCI_LEGACY is off: this kernel cannot drive a legacy device"
        return Evidence(EvidenceKind.CONFIG, Status.NOT_AFFECTED, detail)
    return Evidence(
        EvidenceKind.CONFIG, Status.UNKNOWN, f"CONFIG_VIRTIO_PCI={driver}, CONFIG_VIRTIO_PCI_LEGACY={legacy}"
    )
