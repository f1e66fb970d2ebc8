# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel files on the disk of a machine: where each distribution puts them. What they are is proven elsewhere."""

import re

import msgspec

from ejectable.host.root import Root

__all__ = ["Candidate", "candidates", "module_files", "releases"]

IMAGE = re.compile(r"(?:vmlinuz|vmlinux|Image|kernel|bzImage)[-_]?(.*)", re.DOTALL)
MODULES = ("/lib/modules", "/usr/lib/modules")
MODULE_NAMES = tuple(f"virtio_pci.ko{suffix}" for suffix in ("", ".xz", ".zst", ".gz"))
MAX_IMAGES = 256


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
    """Where virtio_pci.ko of a release is, from the root; updates come before what they update, as depmod has it."""
    if "/" in release or release in (".", ".."):
        return ()
    found = []
    for base in MODULES:
        for folder in ("updates", "extra", "kernel/drivers/virtio"):
            for name in MODULE_NAMES:
                path = root.resolve(f"{base}/{release}/{folder}/{name}")
                if path and root.file(path) and path not in found:
                    found.append(path)
    return tuple(found)


def releases(root: Root) -> tuple[str, ...]:
    """The releases that have modules installed, newest last as far as names tell."""
    names = {name for base in MODULES for name in root.list(base) or () if root.is_dir(f"{base}/{name}")}
    return tuple(sorted(names, key=_natural))


def _natural(text: str) -> list[tuple[int, str]]:
    """For `6.8.0-9` before `6.8.0-31`: digits compare as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d{1,18}|\D+", text)]
