# SPDX-License-Identifier: GPL-2.0-or-later
"""One entry of a boot menu, and where the image that it names is below the root."""

import re
from collections.abc import Sequence

import msgspec

from ejectable.host.root import Root

__all__ = ["MOUNTS", "Entry", "flat", "image_of", "release_of"]

# Boot loaders give paths from the top of the partition that they read, which is mounted at one of these.
MOUNTS = ("", "/boot", "/boot/efi", "/efi", "/boot/firmware")


class Entry(msgspec.Struct, frozen=True):
    """One line of a boot menu; a submenu has others `inside`. `path` is what chooses it: "MENU>ENTRY"."""

    title: str
    id: str
    release: str | None
    inside: tuple["Entry", ...] = ()
    path: str = ""
    image: str | None = None  # as the boot loader names it, from the top of its partition


def flat(menu: Sequence[Entry]) -> list[Entry]:
    """Every entry, those inside of submenus included."""
    return [one for entry in menu for one in (entry, *flat(entry.inside))]


def release_of(image: str | None) -> str | None:
    """From the path of an image: /vmlinuz-RELEASE, or /MACHINE-ID/RELEASE/linux as kernel-install(8) lays it out."""
    folder, _, name = (image or "").rpartition("/")
    return name.partition("-")[2] or (folder.rpartition("/")[2] if name == "linux" else "") or None


def image_of(root: Root, image: str | None, mounts: Sequence[str] = MOUNTS) -> str | None:
    """Where the image of an entry is, from the root and without links; `None` where it is not there.

    Where it is there on more than one of the partitions that may be meant, nothing tells which: `None` too.
    """
    # GRUB's device in front: ($root)/boot/vmlinuz, (hd0,gpt2)/vmlinuz.
    path = re.sub(r"^\([^)]*\)", "", image or "")
    if not path or "$" in path:
        return None
    found = {root.resolve(there) for one in mounts if root.is_file(there := f"{one}/{path.lstrip('/')}")}
    return found.pop() if len(found) == 1 else None
