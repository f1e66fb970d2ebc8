# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that is an image or a module itself, with what lies around it: modules, configuration, initramfs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial

from ejectable.errors import EjectableError
from ejectable.intake import Input, Limits, file_below, read_bounded
from ejectable.kernel.archive_kernels import Part
from ejectable.kernel.containers import folder
from ejectable.kernel.containers.archive import Archive
from ejectable.kernel.containers.folder import Around
from ejectable.kernel.foreign_kernel import ForeignKernel
from ejectable.kernel.image_kernel import ImageKernel, Rival
from ejectable.kernel.images import images_in
from ejectable.kernel.initramfs import initramfs_archive, is_initramfs
from ejectable.kernel.kernel import Kernel, Unreadable
from ejectable.kernel.module import Module
from ejectable.kernel.module_kernel import ModuleKernel
from ejectable.kernel.modules import ArchiveModules, FolderModules, InitramfsModules, JoinedModules, ModuleSource

__all__ = ["ImageFile", "open_image_file", "open_image_in"]

MOST_CONFIG = 4 << 20


def open_image_file(source: Input, limits: Limits, initramfs: Sequence[Part] = ()) -> Iterator[Kernel | Unreadable]:
    """The kernels in an image or a module that was given by itself; raises `BadInput`, `DamagedInput` or `Missing`."""
    with source.open() as file:
        data = read_bounded(file, limits.in_memory, name=source.name)
    if source.path is not None:
        place = folder.around(source.path)
        siblings = partial(_siblings, place, limits)
        yield from _kernels(source.name, data, limits, place, initramfs=initramfs, rivals=siblings)
    else:
        yield from _kernels(source.name, data, limits, None, initramfs=initramfs)


def open_image_in(
    place: Around,
    limits: Limits,
    *,
    far: Callable[[], Iterable[str]] = tuple,
    rivals: Callable[[], Iterable[Rival]] = tuple,
) -> Iterator[Kernel | Unreadable]:
    """The same for a file below a root: `far` are the modules in other folders there, `rivals` the other images."""
    source = file_below(place.root, place.path)
    with source.open() as file:
        data = read_bounded(file, limits.in_memory, name=source.name)
    yield from _kernels(source.name, data, limits, place, far=far, rivals=rivals)


def _kernels(
    name: str,
    data: bytes,
    limits: Limits,
    place: Around | None,
    *,
    initramfs: Sequence[Part] = (),
    far: Callable[[], Iterable[str]] = tuple,
    rivals: Callable[[], Iterable[Rival]] = tuple,
) -> Iterator[Kernel | Unreadable]:
    """Each kernel in the file: itself, or those that it carries, whose own initramfs comes first."""
    sources: list[ModuleSource] = [ArchiveModules((part.path, part.archive)) for part in initramfs]
    if place is not None:
        sources.append(InitramfsModules(lambda release: _beside(place, release, limits)))
        trees = partial(folder.module_roots, place)
        sources.append(FolderModules(place.root, trees, str(place.folder), limits, far))

    def config(release: str | None) -> bytes | None:
        if place is None:
            return None
        texts = (place.root.read(path, MOST_CONFIG) for path in folder.config_beside(place, release))
        return next((text for text in texts if text is not None), None)

    for image in images_in(data, name, limits):
        if isinstance(image, Unreadable | ForeignKernel):
            yield image
        elif image.packed.format == "module":
            module = Module(image.packed.unpack(limits), name=image.name)
            yield ModuleKernel(name, module, lender=partial(_kernel_of, place, module, limits))
        else:
            yield ImageKernel(
                name,
                image.packed,
                limits=limits,
                member=image.member,
                modules=JoinedModules(*image.modules, *sources),
                config=config,
                rivals=rivals,
            )


def _beside(place: Around, release: str | None, limits: Limits) -> Iterator[tuple[str, Callable[[], Archive | None]]]:
    """The initramfs images beside an image: the name of each, and what opens it."""

    def opened(source: Input) -> Archive | None:
        return initramfs_archive(source, limits) if is_initramfs(source) else None

    for path in folder.initramfs_beside(place, release):
        source = file_below(place.root, path)
        yield source.name, partial(opened, source)


def _kernel_of(place: Around | None, module: Module, limits: Limits) -> Kernel | None:
    """The kernel that a module on its own belongs to, if its image lies where it may be expected."""
    for candidate in folder.images_of_module(place, module.release) if place and module.release else ():
        try:
            for kernel in open_image_in(candidate, limits) if candidate.root.is_file(candidate.path) else ():
                if isinstance(kernel, Kernel) and (kernel.release, kernel.arch) == (module.release, module.elf.arch):
                    return kernel
        except EjectableError:  # it was only a guess
            continue
    return None


def _siblings(place: Around, limits: Limits) -> Iterator[Rival]:
    """The other files right in a folder that may be images."""
    for name in place.root.list(str(place.folder)) or ():
        path = str(place.folder / name)
        if path != place.path and folder.looks_like_image(path) and place.root.is_file(path):
            yield ImageFile(place.other(path), limits)


class ImageFile:
    """Another image below the same root, read when it is asked, and let go of: only what tells builds apart is kept.

    What is no kernel after all, or broken, has no release, and is nobody's rival.
    """

    def __init__(self, place: Around, limits: Limits) -> None:
        self.name = place.root.outside(place.path)
        self._place = place
        self._limits = limits
        self._files: dict[str, str | None] = {}

    def _open(self) -> ImageKernel | None:
        try:
            found = open_image_in(self._place, self._limits)
            return next((kernel for kernel in found if isinstance(kernel, ImageKernel)), None)
        except EjectableError:
            return None

    @cached_property
    def release(self) -> str | None:
        """`uname -r`."""
        try:
            kernel = self._open()
            return kernel.release if kernel is not None else None
        except EjectableError:
            return None

    @cached_property
    def _build(self) -> tuple[str | None, str | None]:
        try:
            kernel = self._open()
            return (kernel.build_id, kernel.banner) if kernel is not None else (None, None)
        except EjectableError:
            return None, None

    @property
    def build_id(self) -> str | None:
        """In hex."""
        return self._build[0]

    @property
    def banner(self) -> str | None:
        """The whole line."""
        return self._build[1]

    def module_file(self, name: str) -> str | None:
        """The file that this image takes for a module."""
        if name not in self._files:
            try:
                kernel = self._open()
                self._files[name] = kernel.module_file(name) if kernel is not None else None
            except EjectableError:
                self._files[name] = None
        return self._files[name]
