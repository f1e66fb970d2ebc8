# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel on the disk of a machine: its image, its configuration and its virtio_pci.ko, all from below one root."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.assess import initramfs
from ejectable.errors import EjectableError
from ejectable.intake import decompress
from ejectable.intake.limits import Limits
from ejectable.intake.module_files import module_names
from ejectable.model import Doubt, DoubtKind

if TYPE_CHECKING:
    from ejectable.kernel import Kernel
    from ejectable.kernel.modules import ModuleFiles

__all__ = ["DiskModules", "open_image", "unread"]

MAX_LIST = 16 << 20
MODULE = "virtio_pci"
Found = tuple[str, bytes]  # the name of a module's file, and its content


class DiskModules:
    """The modules of one release below a root (an `ejectable.kernel.modules.ModuleSource`).

    Of the module that is loaded, only a file with its build-id counts: an upgrade may have replaced the file. Of a
    kernel that does not run, what a boot loads: the one in its initramfs and the one on the disk may differ, and then
    each is one of `choices`, of which this object offers the one at `choose`.
    """

    def __init__(
        self, root: host.Root, running: host.Running | None, limits: Limits, image: str, choose: int = 0
    ) -> None:
        self._root = root
        self._running = running
        self._limits = limits
        self._image = image
        self._choose = choose
        self._found: tuple[list[Found], list[Found]] | None = None
        self.choices: list[list[Found]] = []
        self.notes: list[str] = []  # what was passed over
        self.doubts: list[Doubt] = []

    def find(self, release: str | None, module: str) -> "ModuleFiles":
        """The files that may be this module; only virtio_pci is looked for."""
        from ejectable.kernel.modules import ModuleFile, ModuleFiles

        running = self._running
        release = release or (running.release if running else None)
        if release is None or module != MODULE:
            return ModuleFiles()
        # Whatever the release is called: of the kernel that runs, one build of the module is loaded.
        wanted = running.module_build_id if running else None
        if not self.choices:
            self.choices = self._loaded(release, wanted) if wanted else self._booted(release)
        chosen = self.choices[self._choose] if self._choose < len(self.choices) else []
        return ModuleFiles(tuple(ModuleFile(path, partial(bytes, data)) for path, data in chosen))

    def _loaded(self, release: str, wanted: str) -> list[list[Found]]:
        """The files with the build-id of the module that is loaded."""
        for files in (self._on_disk, self._in_initramfs):
            fitting = []
            for path, data in files(release):
                if self._build_id(path, data) == wanted:
                    fitting.append((path, data))
                else:
                    self.notes.append(f"{path} is another build than the module that is loaded.")
            if fitting:
                self.doubts.clear()  # what else could not be read is not what is loaded
                return [fitting]
        return []

    def _booted(self, release: str) -> list[list[Found]]:
        """What a boot may load: the files on the disk in their order, and apart each that differs in the initramfs."""
        on_disk = list(self._on_disk(release))
        if not on_disk and MODULE in (self.builtin(release) or ()):
            return []
        choices = [on_disk] if on_disk else []
        for path, data in self._in_initramfs(release):
            same = on_disk and self._build_id(path, data) == self._build_id(*on_disk[0])
            if not same or self._build_id(path, data) is None:
                choices.append([(path, data)])
        return choices

    def _on_disk(self, release: str) -> Iterator[Found]:
        for path in host.module_files(self._root, release):
            try:
                yield path, self._root.content(path, self._limits.in_memory)
            except EjectableError as error:
                self.doubts.append(unread(path, error))

    def _in_initramfs(self, release: str) -> Iterator[Found]:
        found, doubts = initramfs.modules_in(self._root, release, self._image, MODULE, self._limits)
        self.doubts += doubts
        yield from found

    def _build_id(self, path: str, data: bytes) -> str | None:
        """Of a module; `None` where it has none, or cannot be read."""
        from ejectable.kernel.module import Module

        try:
            return Module(decompress(data, self._limits.in_memory, name=path), name=path).elf.build_id
        except EjectableError as error:
            self.doubts.append(unread(path, error))
            return None

    def names(self, release: str | None) -> frozenset[str]:
        """The one that matters here, where it is."""
        there = release is not None and host.module_files(self._root, release)
        return frozenset({MODULE} if there else ())

    def builtin(self, release: str | None) -> frozenset[str] | None:
        """What modules.builtin lists."""
        if release is None or "/" in release:
            return None
        for base in ("/lib/modules", "/usr/lib/modules"):
            data = self._root.read(f"{base}/{release}/modules.builtin", MAX_LIST)
            if data is not None:
                return module_names(data)
        return None


def unread(path: str, error: EjectableError) -> Doubt:
    """That a file is there and could not be read."""
    kind = DoubtKind.PERMISSION if isinstance(error.__cause__, PermissionError) else DoubtKind.UNREADABLE
    return Doubt(kind, path, f"{path} could not be read: {error.message}")


def open_image(root: host.Root, path: str, modules: DiskModules, limits: Limits) -> "Kernel":
    """The kernel in the image at `path` (from the root); raises `BadInput`, `DamagedInput` or `Missing`."""
    from ejectable.kernel.formats import recognise
    from ejectable.kernel.image_kernel import ImageKernel

    packed = recognise(root.content(path, limits.in_memory), name=path)
    folder, _, name = path.rpartition("/")

    def config(release: str | None) -> bytes | None:
        suffix = release or name.partition("-")[2]
        beside = root.read(f"{folder}/config-{suffix}", 1 << 20) if suffix and "/" not in suffix else None
        return beside if beside is not None else root.read(f"{folder}/config", 1 << 20)

    return ImageKernel(path, packed, limits=limits, modules=modules, config=config)
