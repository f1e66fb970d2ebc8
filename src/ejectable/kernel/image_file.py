# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that is an image or a module itself, with what lies beside it in its folder."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from ejectable.errors import EjectableError
from ejectable.intake import Limits, open_regular, read_bounded
from ejectable.intake.module_files import module_name
from ejectable.kernel.containers import folder
from ejectable.kernel.formats import recognise
from ejectable.kernel.image_kernel import ImageKernel, Rival
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.module import Module
from ejectable.kernel.module_kernel import ModuleKernel
from ejectable.kernel.modules import FolderModules

__all__ = ["ImageFile", "open_image_file"]

MOST_CONFIG = 4 << 20


def open_image_file(
    path: Path,
    limits: Limits,
    *,
    top: Path | None = None,
    far: Callable[[], Iterable[Path]] = tuple,
    rivals: Callable[[], Iterable[Rival]] | None = None,
) -> Kernel:
    """The kernel in an image or a module; raises `BadInput`, `DamagedInput` or `Missing`.

    `top` is the folder that was given, `far` the modules somewhere below it and `rivals` the other images there; of
    an image that was given itself, they are those in its folder.
    """
    name = str(path)
    with open_regular(path) as file:
        data = read_bounded(file, limits.in_memory, name=name)
    packed = recognise(data, name=name)
    if packed.format == "module":
        module = Module(packed.unpack(limits), name=name)
        return ModuleKernel(name, module, lender=lambda: _kernel_of(path, module, limits))
    modules = FolderModules(
        lambda release: folder.module_roots(path, release, top), lambda: _modules_in(path.parent), limits, far
    )

    def config(release: str | None) -> bytes | None:
        for candidate in folder.config_beside(path, release):
            if candidate.is_file():
                with open_regular(candidate) as file:
                    return read_bounded(file, MOST_CONFIG, name=str(candidate))
        return None

    def beside() -> Iterable[Rival]:
        return (ImageFile(other, limits) for other in _images_in(path.parent) if other != path)

    return ImageKernel(
        name, packed, limits=limits, modules=modules, config=config, rivals=beside if rivals is None else rivals
    )


def _kernel_of(path: Path, module: Module, limits: Limits) -> Kernel | None:
    """The kernel that a module on its own belongs to, if its image lies where it may be expected."""
    for candidate in folder.images_of_module(path, module.release) if module.release else ():
        try:
            kernel = open_image_file(candidate, limits) if candidate.is_file() else None
            if kernel is not None and (kernel.release, kernel.arch) == (module.release, module.elf.arch):
                return kernel
        except EjectableError:  # it was only a guess
            continue
    return None


def _modules_in(parent: Path) -> Iterator[Path]:
    """The module files right in a folder."""
    return (path for path in _files_in(parent) if module_name(path.name))


def _images_in(parent: Path) -> Iterator[Path]:
    """The files right in a folder that may be images."""
    return (path for path in _files_in(parent) if folder.looks_like_image(path))


def _files_in(parent: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in parent.iterdir() if path.is_file())
    except OSError:
        return


class ImageFile:
    """Another image in the folder, read when it is asked, and let go of: only what tells builds apart is kept.

    What is no kernel after all, or broken, has no release, and is nobody's rival.
    """

    def __init__(self, path: Path, limits: Limits, top: Path | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._limits = limits
        self._top = top
        self._files: dict[str, str | None] = {}

    def _open(self) -> ImageKernel | None:
        try:
            kernel = open_image_file(self._path, self._limits, top=self._top, rivals=tuple)
        except EjectableError:
            return None
        return kernel if isinstance(kernel, ImageKernel) else None

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
