# SPDX-License-Identifier: GPL-2.0-or-later
"""From a path to kernels: which container it is, and what is in it."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ejectable.errors import BadInput, DamagedInput, EjectableError, Missing
from ejectable.intake import (
    DEFAULT_LIMITS,
    Compression,
    Limits,
    is_directory,
    open_decompressed,
    open_regular,
    read_bounded,
    sniff,
)
from ejectable.kernel.containers import cpio, deb, folder, rpm
from ejectable.kernel.containers.archive import Archive, Entry
from ejectable.kernel.formats import recognise
from ejectable.kernel.kernel import Kernel, Unreadable
from ejectable.kernel.module import Module
from ejectable.kernel.modules import ArchiveModules, FolderModules, files_below, module_name
from ejectable.kernel.package import Package, from_deb, from_rpm

__all__ = ["Kernel", "Package", "Unreadable", "open_kernels"]

# Images in a package, by name: Debian and Ubuntu, Fedora and RHEL (kernel-core), SUSE (arm64: Image), Arch.
IMAGE = re.compile(
    r"(?:boot|(?:usr/)?lib/modules/[^/]+)/(?:vmlinuz|bzImage|Image|vmlinux)(?:[-.].*)?(?<!\.hmac)(?<!\.sig)(?<!\.p7s)"
    r"(?<!\.symvers)"
)
MODULE_FOLDER = re.compile(r"(?:usr/)?lib/modules/([^/]+)/(?:modules\.builtin|kernel/.*)")
CONFIG = "(?:boot/config-{0}|(?:usr/)?lib/modules/{0}/config)"
MOST_CONFIG = 4 << 20
# The modules that are worth being reported alone, where their kernel is not there.
ALONE = ("virtio_pci",)
NO_KERNEL_HINT = (
    "Headers, debug symbols and metapackages have none; give the package of the image itself, or the image."
)


def open_kernels(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Kernel | Unreadable]:
    """Every kernel in a file, a package, an initramfs, a source tree or a folder.

    Raises `BadInput` where there is none, `DamagedInput` where it is broken, `Missing` where it cannot be read.
    In a folder, what is broken comes as `Unreadable` and does not keep the others from being read. A kernel reads
    on when it is asked, so its properties and methods raise the same errors.
    """
    if is_directory(path):
        yield from _in_folder(Path(path), limits)
    else:
        yield from _in_file(Path(path), limits)


def _in_file(path: Path, limits: Limits) -> Iterator[Kernel]:
    name = str(path)
    with open_regular(path) as file:
        head = file.read(16)
    if not head:
        raise BadInput("expected a kernel, found an empty file", path=name)
    if head.startswith(deb.MAGIC):
        archive = deb.data_archive(path, limits)
        yield from _in_package(name, archive, from_deb(name, archive, limits), limits)
    elif head.startswith(rpm.MAGIC):
        yield from _in_package(name, rpm.data_archive(path, limits), from_rpm(name), limits)
    elif _is_initramfs(path, head):
        yield from _in_initramfs(path, limits)
    else:
        yield _image(path, limits)


def _image(path: Path, limits: Limits, loose: Callable[[], Iterator[Path]] | None = None) -> Kernel:
    """A file that is an image or a module itself, with what lies beside it."""
    name = str(path)
    with open_regular(path) as file:
        data = read_bounded(file, limits.in_memory, name=name)
    packed = recognise(data, name=name)
    if packed.format == "module":
        module = Module(packed.unpack(limits), name=name)
        return Kernel(name, limits=limits, standalone=module, base=lambda: _kernel_of(path, module, limits))
    modules = FolderModules(
        lambda release: folder.module_roots(path, release), loose or (lambda: _modules_in(path.parent)), limits
    )

    def config(release: str | None) -> bytes | None:
        for candidate in folder.config_beside(path, release):
            if candidate.is_file():
                with open_regular(candidate) as file:
                    return read_bounded(file, MOST_CONFIG, name=str(candidate))
        return None

    return Kernel(name, limits=limits, packed=packed, modules=modules, config=config)


def _kernel_of(path: Path, module: Module, limits: Limits) -> Kernel | None:
    """The kernel that a module on its own belongs to, if its image lies where it may be expected."""
    for candidate in folder.images_of_module(path, module.release) if module.release else ():
        try:
            kernel = _image(candidate, limits) if candidate.is_file() else None
            if kernel is not None and (kernel.release, kernel.arch) == (module.release, module.elf.arch):
                return kernel
        except EjectableError:  # it was only a guess
            continue
    return None


def _modules_in(parent: Path) -> Iterator[Path]:
    """The module files right in a folder."""
    try:
        yield from sorted(path for path in parent.iterdir() if module_name(path.name) and path.is_file())
    except OSError:
        return


def _in_package(path: str, archive: Archive, package: Package | None, limits: Limits) -> Iterator[Kernel]:
    """The kernel of a package, or its modules where that is all it has."""
    modules = ArchiveModules(path, archive)

    def config(release: str | None) -> bytes | None:
        member = archive.find(re.compile(CONFIG.format(re.escape(release) if release else "[^/]+")))
        return archive.read(member) if member else None

    member = archive.find(IMAGE)
    if member is not None:
        packed = recognise(archive.read(member), name=f"{path}({member})")
        yield Kernel(path, limits=limits, member=member, packed=packed, modules=modules, config=config, package=package)
        return
    member = archive.find(MODULE_FOLDER)
    if member is None:
        what = f"the package {package.name}" if package is not None else "it"
        raise BadInput(f"{what} holds no kernel", path=path, hint=NO_KERNEL_HINT)
    found = MODULE_FOLDER.fullmatch(member)
    release = found[1] if found else None
    yield Kernel(path, limits=limits, modules=modules, config=config, package=package, release=release)


def _is_initramfs(path: Path, head: bytes) -> bool:
    if head[:6] in cpio.MAGICS:
        return True
    if sniff(head) is Compression.NONE:
        return False
    with open_regular(path) as file:
        return open_decompressed(file, name=str(path)).read(6) in cpio.MAGICS


def _in_initramfs(path: Path, limits: Limits) -> Iterator[Kernel]:
    def walk() -> Iterator[Entry]:
        with open_regular(path) as file:
            yield from cpio.initramfs_entries(file, name=str(path), limit=limits.unpacked)

    return _in_package(str(path), Archive(walk, name=str(path), limits=limits), None, limits)


def _in_folder(top: Path, limits: Limits) -> Iterator[Kernel | Unreadable]:
    """What is found below a folder, packages included; `BadInput` if that is nothing."""
    try:
        os.scandir(top).close()
    except PermissionError as error:
        raise Missing(
            f"{top}: the folder may not be read by this user.", hint="Run it as root, or as the owner."
        ) from error
    found = False
    for kernel in _Search(top, limits):
        found = True
        yield kernel
    if not found:
        raise BadInput("a folder without a kernel in it", path=str(top), hint="Name the image or package itself.")


class _Search:
    """One walk through a folder: images and packages as they come, then the modules that fitted none of them."""

    def __init__(self, top: Path, limits: Limits) -> None:
        self._top = top
        self._limits = limits
        self._trees: list[Path] = []
        self._loose: list[Path] = []

    def __iter__(self) -> Iterator[Kernel | Unreadable]:
        files = self._files()
        releases = set()
        for path in files:
            for kernel in self._open(path):
                yield kernel
                if isinstance(kernel, Kernel):
                    releases.add(_release_or_none(kernel))
        for path in self._loose:
            for kernel in self._open(path):
                if isinstance(kernel, Unreadable) or kernel.release not in releases:
                    yield kernel
        for tree in self._trees:
            yield Kernel(str(tree), limits=self._limits, source_tree=tree, release=folder.source_release(tree))

    def _files(self) -> list[Path]:
        """The files that may be kernels; source trees and loose modules are put aside."""
        files = []
        for path in files_below(self._top, self._is_tree):
            if path.is_symlink() and self._leads_inside(path):
                continue
            if folder.looks_like_kernel(path):
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
            if path.name.endswith((".deb", ".udeb", ".rpm")):
                yield from _in_file(path, self._limits)
            else:
                yield _image(path, self._limits, lambda: iter(self._loose))
        except (DamagedInput, Missing) as error:
            yield Unreadable(str(path), error)
        except BadInput as error:
            # It only looked like a kernel by its name, unless it is something that cannot even be opened.
            if not path.is_file():
                yield Unreadable(str(path), error)


def _built_in(tree: Path) -> Iterator[Path]:
    """Where a build leaves its images in the tree (arch/*/boot, and the top)."""
    yield tree / "arch" / "x86" / "boot" / "bzImage"
    boot = tree / "arch" / "arm64" / "boot"
    image = next((p for p in (boot / "Image", boot / "Image.gz", boot / "vmlinuz.efi") if p.is_file()), None)
    if image is not None:
        yield image
    yield tree / "vmlinux"


def _release_or_none(kernel: Kernel) -> str | None:
    try:
        return kernel.release
    except EjectableError:
        return None
