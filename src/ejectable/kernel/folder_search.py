# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels below a folder: images, packages, source trees, and modules that belong to none of them.

Everything is read through one `Root`: no link leads out of the folder.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ejectable.errors import BadInput, DamagedInput, Denied, EjectableError, Missing
from ejectable.intake import Input, Limits, Root, file_below, is_directory
from ejectable.intake.module_files import module_name
from ejectable.kernel.archive_kernels import ALONE
from ejectable.kernel.containers import folder
from ejectable.kernel.containers.folder import Around
from ejectable.kernel.image_file import ImageFile, open_image_in
from ejectable.kernel.image_kernel import ImageKernel, Rival
from ejectable.kernel.kernel import Kernel, Unreadable, unreadable
from ejectable.kernel.package_set import groups
from ejectable.kernel.source_kernel import SourceKernel
from ejectable.model import Doubt, DoubtKind

__all__ = ["kernels_below"]

OpenInputs = Callable[[Sequence[Input], Limits], Iterator[Kernel | Unreadable]]


def kernels_below(top: Path, limits: Limits, open_inputs: OpenInputs) -> Iterator[Kernel | Unreadable]:
    """What is found below a folder, packages included (`open_inputs` opens them); `BadInput` if that is nothing.

    Of /boot, modules are looked for beside it: it is a part of a machine's tree.
    """
    top = top.absolute()
    machine = top.name == "boot" and is_directory(top.parent / "lib" / "modules")
    root, start = (Root(top.parent), "/boot") if machine else (Root(top), "/")
    found = False
    for kernel in _Search(root, start, limits, open_inputs):
        found = True
        yield kernel
    if not found:
        raise BadInput("a folder without a kernel in it", path=str(top), hint="Name the image or package itself.")


class _Search:
    """One walk through a folder: images and packages as they come, then the modules that fitted none of them."""

    def __init__(self, root: Root, start: str, limits: Limits, open_inputs: OpenInputs) -> None:
        self._root = root
        self._start = start
        self._limits = limits
        self._open_inputs = open_inputs
        self._trees: list[str] = []
        self._loose: list[str] = []
        self._initramfs: list[str] = []
        self._images: dict[str, ImageFile] = {}
        # What was judged with an image: its initramfs, loose modules, or those that its folder holds and does not load.
        self._taken: set[str] = set()

    def __iter__(self) -> Iterator[Kernel | Unreadable]:
        with self._root.recording() as recording:
            files = self._files()
        yield from map(self._not_listed, recording.doubts)
        packages = [path for path in files if folder.looks_like_package(path)]
        images = [path for path in files if path not in packages]
        self._images = {path: ImageFile(self._at(path), self._limits) for path in images}
        for path in images:
            for kernel in self._open(path):
                yield kernel
                if isinstance(kernel, ImageKernel):
                    self._take(path, kernel)
        for group in groups((file_below(self._root, path) for path in packages), self._limits):
            yield from self._open_together(group)
        for path in self._initramfs:
            if path not in self._taken:
                yield from self._open_together([file_below(self._root, path)])
        for path in self._loose:
            if path not in self._taken:
                yield from self._open(path)
        for tree in self._trees:
            yield SourceKernel(Path(self._root.outside(tree)))

    def _at(self, path: str) -> Around:
        return Around(self._root, path)

    def _not_listed(self, doubt: Doubt) -> Unreadable:
        """A folder that may not be listed, or one too many: there may be kernels in it."""
        path = self._root.outside(doubt.where)
        error: EjectableError = DamagedInput(doubt.detail, path=path, hint="Name the kernel's own folder.")
        if doubt.kind is DoubtKind.PERMISSION:
            error = Denied(f"{path}: may not be read by this user.", hint="Run it as root, or as the owner.")
        if doubt.where == self._start:
            raise error
        return Unreadable(path, error, doubt)

    def _files(self) -> list[str]:
        """The files that may be kernels; source trees and loose modules are put aside."""
        files = []
        for here, folders, names in self._root.walk(self._start):
            if "drivers" in folders and folder.has_source_tree(self._root, here):
                self._trees.append(here)
                folders.clear()
                continue
            for name in names:
                path = f"{here.rstrip('/')}/{name}"
                if folder.looks_like_package(path) or folder.looks_like_image(path):
                    files.append(path)
                elif folder.looks_like_initramfs(path):
                    self._initramfs.append(path)
                elif module_name(path) in ALONE:
                    self._loose.append(path)
        for tree in self._trees:
            files += _built_in(self._root, tree)
        return [path for path in files if not self._is_met_anyway(path, files)]

    def _is_met_anyway(self, path: str, files: Sequence[str]) -> bool:
        """Whether it is a link to one of the others, as /vmlinuz and /boot/vmlinuz are, or to what is not there."""
        resolved = self._root.resolve(path)
        return resolved is None or (resolved != path and resolved in files)

    def _open(self, path: str) -> Iterator[Kernel | Unreadable]:
        """The kernel in one file of the folder; nothing where it is no kernel after all."""
        about = self._root.stat(path)
        if about is not None and about.st_size > self._limits.in_memory and not self._is_elf(path):
            return  # a disk image, say: of kernels only a vmlinux with all its debug information is that large
        try:
            yield from open_image_in(
                self._at(path), self._limits, far=lambda: self._loose, rivals=lambda: self._others(path)
            )
        except (DamagedInput, Missing) as error:
            yield unreadable(self._root.outside(path), error)
        except BadInput as error:
            # It only looked like a kernel by its name, unless it is something that cannot even be opened.
            if not self._root.is_file(path):
                yield unreadable(self._root.outside(path), error)

    def _open_together(self, group: Sequence[Input]) -> Iterator[Kernel | Unreadable]:
        try:
            yield from self._open_inputs(group, self._limits)
        except (DamagedInput, Missing) as error:
            yield unreadable(group[0].name, error)
        except BadInput:  # a package of something else, an initramfs without modules
            return

    def _is_elf(self, path: str) -> bool:
        return (self._root.read(path, 4, head=True) or b"").startswith(b"\x7fELF")

    def _others(self, path: str) -> Iterator[Rival]:
        return (image for other, image in self._images.items() if other != path)

    def _take(self, path: str, kernel: ImageKernel) -> None:
        """Put the loose modules aside that this image has an answer for."""
        try:
            chosen = {kernel.module_file(name, near=True) for name in ALONE}
            trees = {self._root.resolve(tree) for tree in folder.module_roots(self._at(path), kernel.release)}
        except EjectableError:  # then each is judged by itself
            return
        self._taken |= set(folder.initramfs_beside(self._at(path), kernel.release))
        for loose in self._loose:
            if self._root.outside(loose) in chosen or trees & {str(above) for above in PurePosixPath(loose).parents}:
                self._taken.add(loose)


def _built_in(root: Root, tree: str) -> Iterator[str]:
    """The images that a build left in its tree (arch/*/boot, and the top)."""
    boot = f"{tree.rstrip('/')}/arch"
    arm64 = (f"{boot}/arm64/boot/{name}" for name in ("Image", "Image.gz", "vmlinuz.efi"))
    wanted = (f"{boot}/x86/boot/bzImage", next(filter(root.is_file, arm64), None), f"{tree.rstrip('/')}/vmlinux")
    return (path for path in wanted if path is not None and root.is_file(path))
