# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders: which files in one may be kernels, and what lies where around an image.

Known layouts: a root with boot/ and lib/modules/RELEASE/ (or usr/lib/modules, where some distributions keep the
image too), a build tree, a kernel source tree, and a flat folder of anything.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from ejectable.intake import Root, is_directory, is_file, open_regular

__all__ = [
    "Around",
    "around",
    "config_beside",
    "has_source_tree",
    "images_of_module",
    "initramfs_beside",
    "is_source_tree",
    "looks_like_image",
    "looks_like_initramfs",
    "looks_like_package",
    "module_roots",
    "source_release",
]

# Names that the kernel's build, its install scripts, boot loaders and people give to images. Much that begins in the
# same way is none: vmlinux.o, vmlinux.lds, Image.rst, vmlinuz-6.1.hmac. What is in the file decides.
KERNEL_FILE = re.compile(
    r"(?:(?:vmlinu[xz]|(?:b?z|u)?Image|linux|kernel)(?:[-._].+)?|kernel\d+(?:[-._].+)?|.+\.(?:efi|itb|fit)"
    r"|boot(?:[-_].+)?\.img)"
)
PACKAGE = (".deb", ".rpm", ".udeb")
NOT_A_KERNEL = re.compile(r".+\.(?:hmac|sig|p7s|o|a|S|lds|map|symvers|cmd|txt|sha\d+|asc|dpkg-\w+|md|rst)")
MAKEFILE_LINE = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=[ \t]*(\S*)", re.MULTILINE)
MAKEFILE_HEAD = 8192
SOURCES = "drivers/virtio"
BUILD_TOP = ("Module.symvers", "modules.builtin", "include/config/auto.conf")
INITRAMFS = re.compile(r"(?:initrd|initramfs)(?!.*kdump)[^/]*")
RELEASE_IN_NAME = re.compile(r"\d+\.\d+")


class Around(msgspec.Struct, frozen=True):
    """Where a file lies: its `path` from the top of `root`, out of which nothing that is looked at beside it lies.

    `root` may be a machine's root, and then holds lib/modules.
    """

    root: Root
    path: str

    @property
    def folder(self) -> PurePosixPath:
        """The folder that it lies in."""
        return PurePosixPath(self.path).parent

    def other(self, path: str | PurePosixPath) -> "Around":
        """Another file below the same root."""
        return Around(self.root, str(path))


def around(file: Path) -> Around:
    """Where a file lies that was given by itself: the root is the folder whose layout it fits in."""
    file = file.absolute()
    folder = file.parent
    if folder.parent.name == "modules" and folder.parent.parent.name == "lib":  # lib/modules/RELEASE/vmlinuz
        top = folder.parents[2]
        top = top.parent if top.name == "usr" else top
    else:
        built = (up for up in file.parents[:4] if any(is_file(up / name) for name in BUILD_TOP))
        top = next(built, folder.parent)
    return Around(Root(top), f"/{file.relative_to(top)}")


def looks_like_package(path: str | PurePosixPath) -> bool:
    """Whether a file of this name may be a package."""
    return str(path).endswith(PACKAGE)


def looks_like_initramfs(path: str | PurePosixPath) -> bool:
    """Whether a file of this name may be an initramfs, and not one for a crash kernel."""
    return INITRAMFS.fullmatch(PurePosixPath(path).name) is not None


def looks_like_image(path: str | PurePosixPath) -> bool:
    """Whether a file of this name may be a kernel image."""
    path = PurePosixPath(path)
    if path.parent.name == "compressed":  # arch/x86/boot/compressed/vmlinux is the decompressor
        return False
    return KERNEL_FILE.fullmatch(path.name) is not None and NOT_A_KERNEL.fullmatch(path.name) is None


def is_source_tree(folder: Path) -> bool:
    """Whether this is the top of a kernel source tree, whole or just the part about virtio."""
    return is_file(folder / SOURCES / "virtio.c") and (
        is_file(folder / "Makefile") or is_directory(folder / "include" / "linux")
    )


def has_source_tree(root: Root, folder: str) -> bool:
    """As `is_source_tree`, for a folder below a root; no link on the way to its sources is followed."""
    there = f"{folder.rstrip('/')}/{SOURCES}/virtio.c"
    return root.is_file(there) and root.resolve(there) == there and is_source_tree(Path(root.outside(folder)))


def source_release(folder: Path) -> str | None:
    """The release that the top Makefile gives, without what a configuration would append."""
    makefile = folder / "Makefile"
    if not is_file(makefile):
        return None
    with open_regular(makefile) as file:
        found: dict[str, str] = dict(MAKEFILE_LINE.findall(file.read(MAKEFILE_HEAD).decode("utf-8", "replace")))
    if not found.get("VERSION") or not found.get("PATCHLEVEL"):
        return None
    numbers = [found["VERSION"], found["PATCHLEVEL"], found.get("SUBLEVEL", "")]
    return ".".join(number for number in numbers if number) + found.get("EXTRAVERSION", "")


def build_top(image: Around) -> PurePosixPath | None:
    """The top of the build tree that an image lies in, where it does."""
    for folder in PurePosixPath(image.path).parents[:4]:
        if any(image.root.is_file(str(folder / name)) for name in BUILD_TOP):
            return folder
    return None


def module_roots(image: Around, release: str | None) -> Iterator[str]:
    """The folders where modules for this image may lie, the most telling first."""
    folder = image.folder
    if folder.parent.name == "modules":  # lib/modules/RELEASE/vmlinuz
        yield str(folder)
    if release and "/" not in release and release not in (".", ".."):
        for base in dict.fromkeys((folder.parent, folder, PurePosixPath("/"))):
            yield str(base / "lib" / "modules" / release)
            yield str(base / "usr" / "lib" / "modules" / release)
    top = build_top(image)
    if top is not None:
        yield str(top)


def images_of_module(module: Around, release: str) -> Iterator[Around]:
    """The files that may be the image of the kernel that a module below lib/modules belongs to, or lies beside."""
    for folder in PurePosixPath(module.path).parents:
        if folder.name == release and folder.parent.name == "modules":
            yield module.other(folder / "vmlinuz")
            for root in folder.parents[2:4]:
                yield module.other(root / "boot" / f"vmlinuz-{release}")
    for name in (f"vmlinuz-{release}", "vmlinuz", "vmlinux", "bzImage", "Image"):
        yield module.other(module.folder / name)


def config_beside(image: Around, release: str | None) -> Iterator[str]:
    """The files that may be this image's configuration, the most telling first."""
    folder, name = image.folder, PurePosixPath(image.path).name
    if release and "/" not in release:
        yield str(folder / f"config-{release}")
    if folder.parent.name == "modules":
        yield str(folder / "config")
    top = build_top(image)
    if top is not None:
        yield str(top / ".config")
    if name in ("vmlinux", "bzImage", "Image"):
        yield str(folder / ".config")


def initramfs_beside(image: Around, release: str | None) -> Iterator[str]:
    """The files in the image's folder that it may be booted with: of its release, or with none in their names."""
    for name in image.root.list(str(image.folder)) or ():
        if looks_like_initramfs(name) and ((release and release in name) or not RELEASE_IN_NAME.search(name)):
            yield str(image.folder / name)
