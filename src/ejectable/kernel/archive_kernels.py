# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels in a package, an initramfs, or several packages that were given together."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import Limits, decompress
from ejectable.intake.inputs import memory_input
from ejectable.intake.module_files import MODULE_SUFFIX
from ejectable.kernel.containers.archive import Archive
from ejectable.kernel.foreign_kernel import ForeignKernel
from ejectable.kernel.image_kernel import ImageKernel
from ejectable.kernel.images import FoundImage, images_in
from ejectable.kernel.initramfs import initramfs_archive, is_initramfs
from ejectable.kernel.kernel import Kernel, Unreadable, unreadable
from ejectable.kernel.module import Module
from ejectable.kernel.module_kernel import ModuleKernel, ModulesKernel
from ejectable.kernel.modules import TREE, ArchiveModules, InitramfsModules, JoinedModules
from ejectable.kernel.package import Package

__all__ = ["ALONE", "Part", "kernels_in"]

# Images in a package, by name: Debian and Ubuntu, Fedora and RHEL (kernel-core), SUSE (arm64: Image), Arch.
IMAGE = re.compile(
    r"(?:usr/lib/debug/)?(?:boot|(?:usr/)?lib/modules/[^/]{1,128})/(?:vmlinuz|bzImage|Image|vmlinux)(?:[-.][^/]{0,200})?"
    r"(?<!\.hmac)(?<!\.sig)(?<!\.p7s)(?<!\.symvers)"
)
# What may be one elsewhere, in the packages of debian-installer and of unified kernel images; the content decides.
ELSEWHERE = r"(?:[^/]{0,255}/){0,32}+(?:vmlinu[xz](?:-[^/]{1,200})?|bzImage|linux|[^/]{1,200}\.efi)"
ANY_IMAGE = re.compile(rf"{IMAGE.pattern}|{ELSEWHERE}")
CONFIG = "(?:boot/config-{0}|(?:usr/)?lib/modules/{0}/config)"
# The modules that are worth being reported alone, where their kernel is not there.
ALONE = ("virtio_pci",)
ALONE_FILE = re.compile(rf"(?:{'|'.join(name.replace('_', '[-_]') for name in ALONE)}){MODULE_SUFFIX}")
MODULES = re.compile(r"modules\.builtin|kernel/.*")
NO_KERNEL_HINT = "Headers and metapackages have none; give the package of the image itself, or the image."


class Part(msgspec.Struct, frozen=True):
    """An archive that was given: `path` is its file's, `package` what is written on it."""

    path: str
    archive: Archive
    package: Package | None


def kernels_in(parts: Sequence[Part], limits: Limits, extra: Sequence[Part] = ()) -> Iterator[Kernel | Unreadable]:
    """Every kernel in archives that belong together; raises `BadInput` where there is none, `DamagedInput`.

    Each image with the modules of its release, then the modules of releases that no image is there for, then each
    module that lies elsewhere. All archives are read to their end first: what comes later counts as well.
    Of `extra`, initramfs images that were given too, only the modules count.
    """
    modules = ArchiveModules(*((part.path, part.archive) for part in (*extra, *parts)))
    images = list(_images(parts, modules, limits))
    kernels = [image for image in images if isinstance(image, ImageKernel)]
    for kernel in kernels:
        kernel.rivals = lambda: kernels
    yield from images
    releases = {kernel.release for kernel in kernels}
    foreign = [image for image in images if isinstance(image, ForeignKernel)]
    found = bool(images)
    for part in parts:
        for release in _releases(part.archive, alone_only=bool(kernels)):
            # What cannot be read of another architecture is said once, of its image.
            if release not in releases and not any(release in (image.member or "") for image in foreign):
                releases.add(release)
                found = True
                yield ModulesKernel(
                    part.path,
                    release,
                    limits=limits,
                    modules=modules,
                    config=lambda wanted: _config(parts, wanted),
                    package=part.package,
                )
        for alone in _lone_modules(part, limits):
            found = True
            yield alone
    if not found:
        what = [part.package.name if part.package is not None else "" for part in parts]
        if len(parts) > 1:
            raise BadInput(f"none of these packages holds a kernel: {', '.join(what)}", hint=NO_KERNEL_HINT)
        whose = f"the package {what[0]}" if what[0] else "it"
        needs = parts[0].package.needs if parts[0].package is not None else ()
        hint = f"It stands for {' and '.join(needs)}: give that package." if needs else NO_KERNEL_HINT
        raise BadInput(f"{whose} holds no kernel", path=parts[0].path, hint=hint)


def _images(parts: Sequence[Part], modules: ArchiveModules, limits: Limits) -> Iterator[Kernel | Unreadable]:
    """The images, each content once; one that is broken is an error if it is the only one."""
    members = [(part, name) for part in parts for name in dict.fromkeys(part.archive.find_all(ANY_IMAGE))]
    seen: set[bytes] = set()
    for part, member in members:
        name = f"{part.path}({member})"
        try:
            data = part.archive.read(member)
            digest = hashlib.blake2b(data).digest()
            if digest in seen:
                continue
            seen.add(digest)
            for image in images_in(data, name, limits):
                if isinstance(image, FoundImage):
                    yield ImageKernel(
                        part.path,
                        image.packed,
                        limits=limits,
                        member=f"{member}({image.member})" if image.member else member,
                        modules=JoinedModules(*image.modules, *_netboot(part, member, limits), modules),
                        config=lambda wanted: _config(parts, wanted),
                        package=part.package,
                    )
                elif isinstance(image, ForeignKernel):
                    yield ForeignKernel(part.path, data, image.error, member=member, package=part.package)
                else:
                    yield image
        except (BadInput, DamagedInput) as error:
            if not IMAGE.fullmatch(member) and not isinstance(error, DamagedInput):
                continue  # it only had the name of one
            if len(members) == 1:
                raise
            yield unreadable(name, error)


def _netboot(part: Part, image: str, limits: Limits) -> Iterator[InitramfsModules]:
    """The modules in the initramfs that lies beside an image in the same archive, as debian-installer has it."""
    folder = image.rpartition("/")[0]

    def opened(member: str) -> Archive | None:
        source = memory_input(f"{part.path}({member})", part.archive.read(member))
        return initramfs_archive(source, limits) if is_initramfs(source) else None

    names = part.archive.find_all(re.compile(rf"{re.escape(folder)}/(?:initrd|initramfs)[^/]*"))
    found = [(f"{part.path}({member})", partial(opened, member)) for member in dict.fromkeys(names)]
    if found:
        yield InitramfsModules(lambda _release: found)


def _config(parts: Sequence[Part], release: str | None) -> bytes | None:
    pattern = re.compile(CONFIG.format(re.escape(release) if release else "[^/]+"))
    for part in parts:
        if member := part.archive.find(pattern):
            return part.archive.read(member)
    return None


def _releases(archive: Archive, *, alone_only: bool) -> Iterator[str]:
    """The releases that there are modules of; beside an image only those with a module that is worth it."""
    for member in archive.find_all(TREE):
        found = TREE.fullmatch(member)
        if found and (
            ALONE_FILE.fullmatch(member.rpartition("/")[2]) or (not alone_only and MODULES.fullmatch(found[2]))
        ):
            yield found[1]


def _lone_modules(part: Part, limits: Limits) -> Iterator[Kernel | Unreadable]:
    """The modules that lie in no folder of a release, as in an Android ramdisk."""
    for member in dict.fromkeys(part.archive.find_all(ALONE_FILE)):
        if TREE.fullmatch(member):
            continue
        name = f"{part.path}({member})"
        try:
            module = Module(decompress(part.archive.read(member), limits.in_memory, name=name), name=name)
        except BadInput as error:
            yield unreadable(name, error)
            continue
        yield ModuleKernel(part.path, module, member=member, package=part.package)
