# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel on the disk of a machine: its image, its configuration and its virtio_pci.ko, all from below one root."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.errors import EjectableError, Missing
from ejectable.intake import decompress, open_regular, read_bounded
from ejectable.intake.limits import Limits

if TYPE_CHECKING:
    from ejectable.kernel.open import Kernel

__all__ = ["DiskModules", "open_image"]

MAX_LIST = 16 << 20


class DiskModules:
    """The modules of one release below a root (an `ejectable.kernel.modules.ModuleSource`).

    Of the module that is loaded, only a file with its build-id counts: an upgrade may have replaced the file. `notes`
    says what was passed over; `unproven`, that a file was taken for want of a build-id to compare.
    """

    def __init__(self, root: host.Root, running: host.Running | None, limits: Limits) -> None:
        self._root = root
        self._running = running
        self._limits = limits
        self.notes: list[str] = []
        self.unproven = False

    def find(self, release: str | None, module: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file that may be this module; only virtio_pci is looked for."""
        running = self._running
        release = release or (running.release if running else None)
        if release is None or module != "virtio_pci":
            return
        wanted = running.module_build_id if running and release == running.release else None
        for path in host.module_files(self._root, release):
            try:
                with open_regular(self._root.outside(path)) as file:
                    data = read_bounded(file, self._limits.in_memory, name=path)
                if wanted is None or self._build_id(path, data) == wanted:
                    self.unproven = wanted is None
                    yield path, data
                else:
                    self.notes.append(f"{path} is another build than the module that is loaded.")
            except EjectableError as error:
                self.notes.append(f"{path} could not be read: {error.message}")

    def _build_id(self, path: str, data: bytes) -> str | None:
        from ejectable.kernel.module import Module

        return Module(decompress(data, self._limits.in_memory, name=path), name=path).elf.build_id

    def names(self, release: str | None) -> frozenset[str]:
        """The one that matters here, where it is."""
        there = release is not None and host.module_files(self._root, release)
        return frozenset({"virtio_pci"} if there else ())

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """What modules.builtin lists."""
        if release is None or "/" in release:
            return None
        for base in ("/lib/modules", "/usr/lib/modules"):
            data = self._root.read(f"{base}/{release}/modules.builtin", MAX_LIST)
            if data is not None:
                lines = data.decode("utf-8", "replace").splitlines()
                return frozenset(line.rpartition("/")[2].partition(".ko")[0].replace("-", "_") for line in lines)
        return None


def open_image(root: host.Root, path: str, modules: DiskModules, limits: Limits) -> "Kernel":
    """The kernel in the image at `path` (from the root); raises `BadInput`, `DamagedInput` or `Missing`."""
    from ejectable.kernel.formats import recognise
    from ejectable.kernel.open import Kernel

    there = root.file(path)
    if there is None:
        raise Missing(f"{path}: no such file.")
    with open_regular(there) as file:
        data = read_bounded(file, limits.in_memory, name=path)
    packed = recognise(data, name=path)
    folder, _, name = path.rpartition("/")

    def config(release: str | None) -> bytes | None:
        suffix = release or name.partition("-")[2]
        beside = root.read(f"{folder}/config-{suffix}", 1 << 20) if suffix and "/" not in suffix else None
        return beside if beside is not None else root.read(f"{folder}/config", 1 << 20)

    return Kernel(path, limits=limits, packed=packed, modules=modules, config=config)
