# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs of a kernel: a virtio_pci.ko in it is what the next boot loads, whatever lies below /lib/modules."""

import re

from ejectable import host
from ejectable.errors import EjectableError
from ejectable.intake import decompress, open_regular
from ejectable.intake.limits import Limits
from ejectable.kernel.containers.cpio import initramfs_entries
from ejectable.kernel.module import Module

__all__ = ["disagreement", "names"]

VIRTIO_PCI = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(?:.*/)?virtio[-_]pci\.ko(?:\.gz|\.xz|\.zst)?")


def names(root: host.Root, release: str) -> tuple[str, ...]:
    """The names of the initial file systems of a release that are in /boot; those for a crash kernel do not count."""
    return tuple(
        name
        for name in root.list("/boot") or ()
        if name.startswith(("initrd", "initramfs"))
        and re.search(rf"-{re.escape(release)}(?:\.img)?$", name)
        and "kdump" not in name
    )


def disagreement(root: host.Root, release: str, module: str, limits: Limits) -> str | None:
    """Why the next boot may load another virtio_pci than the file `module`; `None` where it will not.

    Compared by build-id, since some tools strip the modules that they pack. An initramfs without the module leaves it
    to the one on disk.
    """
    wanted = _build_id(root, module, limits)
    for name in names(root, release):
        path = f"/boot/{name}"
        there = root.file(path)
        if there is None:
            return f"{path} cannot be read"
        try:
            with open_regular(there) as stream:
                for entry in initramfs_entries(stream, name=path, limit=limits.unpacked):
                    match = VIRTIO_PCI.fullmatch(entry.name)
                    if match is None or match[1] != release:
                        continue
                    data = decompress(entry.read(), limits.in_memory, name=f"{path}({entry.name})")
                    if wanted is None or Module(data, name=path).elf.build_id != wanted:
                        return f"{path} holds another virtio_pci.ko than {module}"
        except EjectableError as error:
            return f"{path} cannot be read: {error.message}"
    return None


def _build_id(root: host.Root, module: str, limits: Limits) -> str | None:
    data = root.read(module, limits.in_memory)
    return None if data is None else Module(decompress(data, limits.in_memory, name=module), name=module).elf.build_id
