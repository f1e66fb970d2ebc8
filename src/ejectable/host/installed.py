# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files on the disk of a machine: where each distribution puts them. What they are is proven elsewhere."""

import re

import msgspec

from ejectable.host.root import Root
from ejectable.intake.module_files import by_precedence, listed

__all__ = ["Candidate", "boots_next", "candidates", "module_files", "releases"]

IMAGE = re.compile(r"(?:vmlinuz|vmlinux|Image|kernel|bzImage)[-_]?(.*)", re.DOTALL)
MODULES = ("/lib/modules", "/usr/lib/modules")
PLACES = ("updates", "updates/dkms", "extra", "weak-updates", "kernel/drivers/virtio")
MODULE_NAMES = tuple(
    f"{name}.ko{suffix}" for name in ("virtio_pci", "virtio-pci") for suffix in ("", ".xz", ".zst", ".gz")
)
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
    for folder in ("/boot", "/boot/efi", "/efi"):
        for name in sorted(root.list(folder) or (), reverse=True):
            match = IMAGE.fullmatch(name)
            if match and "initr" not in name and not name.endswith((".hmac", ".sig", ".old.hmac", ".txt")):
                add(f"{folder}/{name}", match[1] or None)
    for base in MODULES:
        for name in sorted(root.list(base) or (), reverse=True):
            for image in ("vmlinuz", "vmlinuz.efi", "Image"):
                add(f"{base}/{name}/{image}", name)
    return tuple(sorted(found, key=lambda candidate: not candidate.named_for_it))


def module_files(root: Root, release: str) -> tuple[str, ...]:
    """Where virtio_pci.ko of a release is, from the root: the one that modules.dep names, which modprobe loads.

    Where it names none that is there: the files in the usual places, the one first that depmod would prefer.
    """
    if "/" in release or release in (".", ".."):
        return ()
    found: list[str] = []
    for base in MODULES:
        folder = f"{base}/{release}"
        named = listed(root.read(f"{folder}/modules.dep", MAX_DEP) or b"", "virtio_pci")
        if named and (path := _there(root, f"{folder}/{named}")):
            return (path,)
        usual = (f"{place}/{name}" for place in PLACES for name in MODULE_NAMES)
        for name in by_precedence(usual, None, "virtio_pci"):
            path = _there(root, f"{folder}/{name}")
            if path and path not in found:
                found.append(path)
    return tuple(found)


def _there(root: Root, path: str) -> str | None:
    resolved = root.resolve(path)
    return resolved if resolved and root.file(resolved) else None


def releases(root: Root) -> tuple[str, ...]:
    """The releases that have modules installed, newest last as far as names tell."""
    names = {name for base in MODULES for name in root.list(base) or () if root.is_dir(f"{base}/{name}")}
    return tuple(sorted(names, key=_natural))


def boots_next(root: Root) -> str | None:
    """The release that boots next, as far as links and names tell; `None` where no kernel is installed.

    Debian and Ubuntu keep a link to it, Raspberry Pi and the like a file without a release in its name; elsewhere the
    boot loader's menu begins with the newest.
    """
    for path in ("/boot/vmlinuz", "/vmlinuz", "/boot/Image"):
        resolved = root.resolve(path) if root.file(path) else None
        if resolved and (release := resolved.rpartition("/")[2].partition("-")[2]):
            return release
    images = {match[1] for name in root.list("/boot") or () if (match := IMAGE.fullmatch(name)) and match[1]}
    found = sorted(images & set(releases(root)) or set(releases(root)) or images, key=_natural)
    return found[-1] if found else None


def _natural(text: str) -> list[tuple[int, str]]:
    """For `6.8.0-9` before `6.8.0-31`: digits compare as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d{1,18}|\D+", text)]
