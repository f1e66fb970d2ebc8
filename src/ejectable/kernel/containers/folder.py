# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders: which files in one may be kernels, and what lies where around an image.

Known layouts: a root with boot/ and lib/modules/RELEASE/ (or usr/lib/modules, where some distributions keep the
image too), a build tree, a kernel source tree, and a flat folder of anything.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ejectable.intake import open_regular

__all__ = [
    "config_beside",
    "images_of_module",
    "is_source_tree",
    "looks_like_image",
    "looks_like_package",
    "module_roots",
    "source_release",
]

PACKED = r"(?:\.(?:gz|bz2|lzma|xz|lzo|lz4|zst))?"
# Names that the kernel's build, its install scripts and the distributions give to images. Much that begins in the
# same way is none: vmlinux.o, vmlinux.lds, Image.rst, vmlinuz-6.1.hmac.
KERNEL_FILE = re.compile(
    rf"(?:vmlinuz(?:-.+|\.efi)?|vmlinux(?:-.+)?{PACKED}|bzImage(?:-.+)?|Image(?:-.+)?{PACKED}|kernel\.img|linux|.+\.efi)"
)
PACKAGE = (".deb", ".rpm", ".udeb")
NOT_A_KERNEL = re.compile(r".+\.(?:hmac|sig|p7s|o|a|S|lds|map|symvers|cmd|txt|sha\d+|asc|dpkg-\w+|md|rst)")
MAKEFILE_LINE = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=[ \t]*(\S*)", re.MULTILINE)
MAKEFILE_HEAD = 8192


def looks_like_package(path: Path) -> bool:
    """Whether a file of this name may be a package."""
    return path.name.endswith(PACKAGE)


def looks_like_image(path: Path) -> bool:
    """Whether a file of this name may be a kernel image."""
    if path.parent.name == "compressed":  # arch/x86/boot/compressed/vmlinux is the decompressor
        return False
    return KERNEL_FILE.fullmatch(path.name) is not None and NOT_A_KERNEL.fullmatch(path.name) is None


def is_source_tree(folder: Path) -> bool:
    """Whether this is the top of a kernel source tree, whole or just the part about virtio."""
    return (folder / "drivers" / "virtio" / "virtio.c").is_file() and (
        (folder / "Makefile").is_file() or (folder / "include" / "linux").is_dir()
    )


def source_release(folder: Path) -> str | None:
    """The release that the top Makefile gives, without what a configuration would append."""
    makefile = folder / "Makefile"
    if not makefile.is_file():
        return None
    with open_regular(makefile) as file:
        found: dict[str, str] = dict(MAKEFILE_LINE.findall(file.read(MAKEFILE_HEAD).decode("utf-8", "replace")))
    if not found.get("VERSION") or not found.get("PATCHLEVEL"):
        return None
    numbers = [found["VERSION"], found["PATCHLEVEL"], found.get("SUBLEVEL", "")]
    return ".".join(number for number in numbers if number) + found.get("EXTRAVERSION", "")


def build_top(image: Path) -> Path | None:
    """The top of the build tree that an image lies in, where it does."""
    for folder in image.parents[:4]:
        if (folder / "Module.symvers").is_file() or (folder / "modules.builtin").is_file():
            return folder
        if (folder / "include" / "config" / "auto.conf").is_file():
            return folder
    return None


def module_roots(image: Path, release: str | None, top: Path | None = None) -> Iterator[Path]:
    """The folders where modules for this image may lie, the most telling first; `top` may be a machine's root."""
    image = image.absolute()
    if image.parent.parent.name == "modules":  # lib/modules/RELEASE/vmlinuz
        yield image.parent
    if release and "/" not in release and release not in (".", ".."):
        for root in dict.fromkeys((image.parent.parent, image.parent, *((top.absolute(),) if top is not None else ()))):
            yield root / "lib" / "modules" / release
            yield root / "usr" / "lib" / "modules" / release
    top = build_top(image)
    if top is not None:
        yield top


def images_of_module(module: Path, release: str) -> Iterator[Path]:
    """The files that may be the image of the kernel that a module below lib/modules belongs to, or lies beside."""
    module = module.absolute()
    for folder in module.parents:
        if folder.name == release and folder.parent.name == "modules":
            yield folder / "vmlinuz"
            for root in folder.parents[2:4]:
                yield root / "boot" / f"vmlinuz-{release}"
    for name in (f"vmlinuz-{release}", "vmlinuz", "vmlinux", "bzImage", "Image"):
        yield module.parent / name


def config_beside(image: Path, release: str | None) -> Iterator[Path]:
    """The files that may be this image's configuration, the most telling first."""
    image = image.absolute()
    if release and "/" not in release:
        yield image.with_name(f"config-{release}")
    if image.parent.parent.name == "modules":
        yield image.with_name("config")
    top = build_top(image)
    if top is not None:
        yield top / ".config"
    if image.name in ("vmlinux", "bzImage", "Image"):
        yield image.with_name(".config")
