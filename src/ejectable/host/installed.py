# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files on the disk of a machine: where each distribution puts them. What they are is proven elsewhere."""

import re
from collections.abc import Sequence

import msgspec

from ejectable.host.root import Root
from ejectable.intake.module_files import by_precedence, listed

__all__ = ["Candidate", "candidates", "installed_images", "module_files", "newest_by_name", "releases"]

IMAGE = re.compile(r"(?:vmlinuz|vmlinux|Image|kernel|bzImage)[-_]?(.*)", re.DOTALL)
MODULES = ("/lib/modules", "/usr/lib/modules")
PLACES = ("updates", "updates/dkms", "extra", "weak-updates")
SUFFIXES = ("", ".xz", ".zst", ".gz")
COPIES = ("vmlinuz", "vmlinuz.efi", "Image")  # what packages keep below /lib/modules/RELEASE
MAX_IMAGES = 256
MAX_DEP = 16 << 20


class Candidate(msgspec.Struct, frozen=True):
    """A file that may hold a kernel. `path` is from the root; `release` is what its name says, no more."""

    path: str
    release: str | None
    named_for_it: bool  # its name is that of the release that was asked for


def candidates(root: Root, release: str | None) -> tuple[Candidate, ...]:
    """Files that may hold the kernel of `release`, the likeliest first; the others of /boot after them.

    A name proves nothing: whoever opens one compares build-ids.
    """
    found: list[Candidate] = []
    seen: set[str] = set()

    def add(path: str, named: str | None) -> None:
        resolved = root.resolve(path)
        if resolved and resolved not in seen and root.file(resolved) and len(found) < MAX_IMAGES:
            seen.add(resolved)
            found.append(Candidate(resolved, named, named is not None and named == release))

    safe = release if release and "/" not in release and release not in (".", "..") else None
    if safe:
        for path in (
            f"/boot/vmlinuz-{safe}",
            f"/boot/vmlinux-{safe}",
            f"/boot/Image-{safe}",
            f"/boot/kernel-{safe}",
            *(f"{base}/{safe}/{name}" for base in MODULES for name in ("vmlinuz", "Image", "vmlinux", "vmlinuz.efi")),
            f"/usr/lib/debug/boot/vmlinux-{safe}",
            f"/usr/lib/debug/lib/modules/{safe}/vmlinux",
            f"/usr/lib/debug/usr/lib/modules/{safe}/vmlinux",
            f"/usr/lib/kernel/vmlinux-{safe}",
            *(f"{base}/{safe}/build/vmlinux" for base in MODULES),
        ):
            add(path, safe)
    for folder in ("/boot", "/boot/efi", "/efi", "/boot/firmware"):
        for name in sorted(root.list(folder) or (), reverse=True):
            match = IMAGE.fullmatch(name)
            if match and "initr" not in name and not name.endswith((".hmac", ".sig", ".old.hmac", ".txt")):
                add(f"{folder}/{name}", match[1] or None)
    for base in MODULES:
        for name in sorted(root.list(base) or (), reverse=True):
            for image in COPIES:
                add(f"{base}/{name}/{image}", name)
    return tuple(sorted(found, key=lambda candidate: not candidate.named_for_it))


def installed_images(root: Root, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The images that a boot loader may start, from the root and without links; `also` are some that a menu names.

    Of a release that is in /boot, the copy that its package keeps below /lib/modules is left out, and the vmlinux for
    debuggers. Images for rescue are started by hand only.
    """
    found = [one for one in candidates(root, None) if "rescue" not in one.path]
    in_boot = {one.release for one in found if not one.path.startswith(tuple(f"{base}/" for base in MODULES))}
    images = list(also)
    for one in found:
        name = one.path.rpartition("/")[2]
        plain = one.release and root.exists(f"{one.path.removesuffix(name)}vmlinuz-{one.release.removesuffix('.gz')}")
        if (one.release in in_boot and name in COPIES) or (name.startswith("vmlinux") and plain):
            continue
        images.append(one.path)
    return tuple(dict.fromkeys(images))


def module_files(root: Root, release: str, module: str, folder: str = "") -> tuple[str, ...]:
    """Where a module of a release is, from the root: the file that modules.dep names, which modprobe loads.

    Where it names none that is there: the files in the usual places, the one first that depmod would prefer. `folder`
    is where the kernel's own build puts it, from lib/modules/RELEASE.
    """
    if "/" in release or release in (".", ".."):
        return ()
    found: list[str] = []
    spelt = dict.fromkeys((module, module.replace("_", "-")))
    names = [f"{name}.ko{suffix}" for name in spelt for suffix in SUFFIXES]
    places = (*PLACES, *((folder,) if folder else ()))
    for base in MODULES:
        top = f"{base}/{release}"
        named = listed(root.read(f"{top}/modules.dep", MAX_DEP) or b"", module)
        if named and (path := _there(root, f"{top}/{named}")):
            return (path,)
        usual = (f"{place}/{name}" for place in places for name in names)
        for name in by_precedence(usual, None, module):
            path = _there(root, f"{top}/{name}")
            if path and path not in found:
                found.append(path)
    return tuple(found)


def _there(root: Root, path: str) -> str | None:
    resolved = root.resolve(path)
    return resolved if resolved and root.file(resolved) else None


def releases(root: Root) -> tuple[str, ...]:
    """The releases that have modules installed, newest last as far as names tell."""
    names = {name for base in MODULES for name in root.list(base) or () if root.is_dir(f"{base}/{name}")}
    return tuple(sorted(names, key=natural))


def newest_by_name(root: Root) -> str | None:
    """The release that boots next, as far as links and names tell; `None` where no kernel is installed.

    Debian and Ubuntu keep a link to it, Raspberry Pi and the like a file without a release in its name; elsewhere the
    boot loader's menu begins with the newest. It is a guess: see `ejectable.host.bootloader`.
    """
    for path in ("/boot/vmlinuz", "/vmlinuz", "/boot/Image"):
        resolved = root.resolve(path) if root.file(path) else None
        if resolved and (release := resolved.rpartition("/")[2].partition("-")[2]):
            return release
    images = {match[1] for name in root.list("/boot") or () if (match := IMAGE.fullmatch(name)) and match[1]}
    found = sorted(images & set(releases(root)) or set(releases(root)) or images, key=natural)
    return found[-1] if found else None


def natural(text: str) -> list[tuple[int, str]]:
    """A key for sorting: digits compare as numbers, so that 6.8.0-9 comes before 6.8.0-31."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"[0-9]{1,18}|[^0-9]+", text)]
