# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel on the disk of a machine: its image, its configuration and its modules, all from below one root."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.assess import initramfs
from ejectable.errors import EjectableError
from ejectable.intake import decompress
from ejectable.intake.limits import Limits
from ejectable.intake.module_files import module_name, module_names
from ejectable.model import Doubt, DoubtKind

if TYPE_CHECKING:
    from ejectable.kernel import Kernel
    from ejectable.kernel.modules import ModuleFiles

__all__ = ["DiskModules", "open_image", "unread"]

MAX_LIST = 16 << 20
Found = tuple[str, bytes]  # the name of a module's file, and its content


class DiskModules:
    """The modules of one release below a root (an `ejectable.kernel.modules.ModuleSource`).

    Of a module that is loaded, only a file with its build-id counts: an upgrade may have replaced the file. Of a
    kernel that does not run, what a boot loads: the one in its initramfs and the one on the disk may differ, and then
    each is one of its `choices`, of which this object offers the one at `choose`. `places` are the modules that may be
    asked for, each with its usual folder below lib/modules/RELEASE.
    """

    def __init__(
        self,
        root: host.Root,
        running: host.Running | None,
        limits: Limits,
        image: str,
        places: Mapping[str, str],
        *,
        choose: int = 0,
    ) -> None:
        self._root = root
        self._running = running
        self._limits = limits
        self._image = image
        self._places = places
        self._choose = choose
        self._boot: list[Found] | None = None  # what the initramfs has of them
        self._unread: list[Doubt] = []  # of the initramfs
        self._choices: dict[str, list[list[Found]]] = {}
        self.notes: list[str] = []  # what was passed over
        self.doubts: dict[str, list[Doubt]] = {}  # by module

    @property
    def most_choices(self) -> int:
        """How many different files there are at most for one of the modules that were asked for."""
        return max(map(len, self._choices.values()), default=0)

    def chosen(self, module: str) -> str | None:
        """The file that was offered for a module."""
        files = self._offered(module)
        return files[0][0] if files else None

    def find(self, release: str | None, module: str) -> "ModuleFiles":
        """The files that may be this module."""
        from ejectable.kernel.modules import ModuleFile, ModuleFiles

        running = self._running
        release = release or (running.release if running else None)
        if release is None or module not in self._places:
            return ModuleFiles()
        if module not in self._choices:
            # Whatever the release is called: of the kernel that runs, one build of a module is loaded.
            wanted = running.modules.get(module) if running else None
            self._choices[module] = self._loaded(release, module, wanted) if wanted else self._booted(release, module)
        return ModuleFiles(tuple(ModuleFile(path, partial(bytes, data)) for path, data in self._offered(module)))

    def _offered(self, module: str) -> list[Found]:
        choices = self._choices.get(module, [])
        return choices[min(self._choose, len(choices) - 1)] if choices else []

    def _loaded(self, release: str, module: str, wanted: str) -> list[list[Found]]:
        """The files with the build-id of the module that is loaded."""
        for files in (self._on_disk, self._in_initramfs):
            fitting = []
            for path, data in files(release, module):
                if self._build_id(module, path, data) == wanted:
                    fitting.append((path, data))
                else:
                    self.notes.append(f"{path} is another build than the module that is loaded.")
            if fitting:
                self.doubts.pop(module, None)  # what else could not be read is not what is loaded
                return [fitting]
        return []

    def _booted(self, release: str, module: str) -> list[list[Found]]:
        """What a boot may load: the files on the disk in their order, and apart each that differs in the initramfs."""
        on_disk = list(self._on_disk(release, module))
        if not on_disk and module in (self.builtin(release) or ()):
            return []
        choices = [on_disk] if on_disk else []
        if self._running is not None and self._running.modules and module not in self._running.modules:
            return choices  # the machine has booted without it: what loads it now takes it from the disk
        for path, data in self._in_initramfs(release, module):
            found = self._build_id(module, path, data)
            same = on_disk and found == self._build_id(module, *on_disk[0])
            if not same or found is None:
                choices.append([(path, data)])
        return choices

    def _on_disk(self, release: str, module: str) -> Iterator[Found]:
        for path in host.module_files(self._root, release, module, self._places[module]):
            try:
                yield path, self._root.content(path, self._limits.in_memory)
            except EjectableError as error:
                self._doubt(module, unread(path, error))

    def _in_initramfs(self, release: str, module: str) -> Iterator[Found]:
        if self._boot is None:
            self._boot, self._unread = initramfs.modules_in(
                self._root, release, self._image, tuple(self._places), self._limits
            )
        for doubt in self._unread:
            self._doubt(module, doubt)
        yield from (found for found in self._boot if module_name(found[0].removesuffix(")")) == module)

    def _doubt(self, module: str, doubt: Doubt) -> None:
        self.doubts.setdefault(module, []).append(doubt)

    def _build_id(self, module: str, path: str, data: bytes) -> str | None:
        """Of a module; `None` where it has none, or cannot be read."""
        from ejectable.kernel.module import Module

        try:
            return Module(decompress(data, self._limits.in_memory, name=path), name=path).elf.build_id
        except EjectableError as error:
            self._doubt(module, unread(path, error))
            return None

    def names(self, release: str | None) -> frozenset[str]:
        """Those that modules.dep lists, and those that may be asked for, where they are."""
        if release is None or "/" in release:
            return frozenset()
        there = {module for module, folder in self._places.items()
                 if host.module_files(self._root, release, module, folder)}  # fmt: skip
        for base in ("/lib/modules", "/usr/lib/modules"):
            dep = self._root.read(f"{base}/{release}/modules.dep", MAX_LIST) or b""
            there |= module_names(b"\n".join(line.partition(b":")[0] for line in dep.splitlines()))
        return frozenset(there)

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
