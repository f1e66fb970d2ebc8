# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels below a folder: images, packages, source trees, and modules that belong to none of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ejectable.errors import BadInput, DamagedInput, EjectableError, Missing
from ejectable.intake import Limits
from ejectable.intake.module_files import module_name
from ejectable.kernel.archive_kernels import ALONE
from ejectable.kernel.containers import folder
from ejectable.kernel.image_file import ImageFile, open_image_file
from ejectable.kernel.image_kernel import ImageKernel, Rival
from ejectable.kernel.kernel import Kernel, Unreadable, unreadable
from ejectable.kernel.modules import files_below
from ejectable.kernel.source_kernel import SourceKernel

__all__ = ["kernels_below"]

OpenFile = Callable[[Path, Limits], Iterator[Kernel | Unreadable]]


def kernels_below(top: Path, limits: Limits, open_file: OpenFile) -> Iterator[Kernel | Unreadable]:
    """What is found below a folder, packages included (`open_file` opens one); `BadInput` if that is nothing."""
    try:
        os.scandir(top).close()
    except PermissionError as error:
        raise Missing(
            f"{top}: the folder may not be read by this user.", hint="Run it as root, or as the owner."
        ) from error
    found = False
    for kernel in _Search(top, limits, open_file):
        found = True
        yield kernel
    if not found:
        raise BadInput("a folder without a kernel in it", path=str(top), hint="Name the image or package itself.")


class _Search:
    """One walk through a folder: images and packages as they come, then the modules that fitted none of them."""

    def __init__(self, top: Path, limits: Limits, open_file: OpenFile) -> None:
        self._top = top
        self._limits = limits
        self._open_file = open_file
        self._trees: list[Path] = []
        self._loose: list[Path] = []
        self._images: dict[Path, ImageFile] = {}
        # The loose modules that were judged with an image, or that its folder of modules holds and does not load.
        self._taken: set[Path] = set()

    def __iter__(self) -> Iterator[Kernel | Unreadable]:
        files = self._files()
        self._images = {
            path: ImageFile(path, self._limits, self._top) for path in files if not folder.looks_like_package(path)
        }
        for path in files:
            for kernel in self._open(path):
                yield kernel
                if isinstance(kernel, ImageKernel):
                    self._take(kernel)
        for path in self._loose:
            if path not in self._taken:
                yield from self._open(path)
        for tree in self._trees:
            yield SourceKernel(tree)

    def _files(self) -> list[Path]:
        """The files that may be kernels; source trees and loose modules are put aside."""
        files = []
        for path in files_below(self._top, self._is_tree):
            if path.is_symlink() and self._leads_inside(path):
                continue
            if folder.looks_like_package(path) or folder.looks_like_image(path):
                files.append(path)
            elif module_name(path.name) in ALONE:
                self._loose.append(path)
        for tree in self._trees:
            files += [path for path in _built_in(tree) if path.is_file()]
        return files

    def _is_tree(self, path: Path, _names: list[str]) -> bool:
        if not folder.is_source_tree(path):
            return False
        self._trees.append(path)
        return True

    def _leads_inside(self, link: Path) -> bool:
        """/vmlinuz and /boot/vmlinuz are links to what is met anyway."""
        target = link.resolve()
        return not target.exists() or self._top.resolve() in target.parents

    def _open(self, path: Path) -> Iterator[Kernel | Unreadable]:
        """The kernels in one file of the folder; nothing where it is no kernel after all."""
        try:
            if folder.looks_like_package(path):
                yield from self._open_file(path, self._limits)
            else:
                yield open_image_file(
                    path,
                    self._limits,
                    top=self._top,
                    far=lambda: self._loose,
                    rivals=lambda: self._others(path),
                )
        except (DamagedInput, Missing) as error:
            yield unreadable(str(path), error)
        except BadInput as error:
            # It only looked like a kernel by its name, unless it is something that cannot even be opened.
            if not path.is_file():
                yield unreadable(str(path), error)

    def _others(self, path: Path) -> Iterator[Rival]:
        return (image for other, image in self._images.items() if other != path)

    def _take(self, kernel: ImageKernel) -> None:
        """Put the loose modules aside that this image has an answer for."""
        try:
            chosen = {Path(file).absolute() for name in ALONE if (file := kernel.module_file(name, near=True))}
            trees = set(folder.module_roots(Path(kernel.path), kernel.release, self._top))
            self._taken |= {
                path
                for path in self._loose
                if path.absolute() in chosen or not trees.isdisjoint(path.absolute().parents)
            }
        except EjectableError:  # then each is judged by itself
            return


def _built_in(tree: Path) -> Iterator[Path]:
    """Where a build leaves its images in the tree (arch/*/boot, and the top)."""
    yield tree / "arch" / "x86" / "boot" / "bzImage"
    boot = tree / "arch" / "arm64" / "boot"
    image = next((p for p in (boot / "Image", boot / "Image.gz", boot / "vmlinuz.efi") if p.is_file()), None)
    if image is not None:
        yield image
    yield tree / "vmlinux"
