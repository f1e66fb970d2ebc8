# SPDX-License-Identifier: GPL-2.0-or-later
"""The menu of extlinux and syslinux, which U-Boot reads as well (doc/README.pxe, doc.syslinux.org "Config")."""

import re

from ejectable.host.bootloader.entry import Entry, release_of

__all__ = ["read_extlinux"]


def read_extlinux(text: str, folder: str) -> tuple[tuple[Entry, ...], Entry | None]:
    """The entries, and the default one: ONTIMEOUT's, DEFAULT's, else the first. `folder` is where the file is."""
    found: list[Entry] = []
    chosen: dict[str, str] = {}
    title = label = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        word, rest = word.upper(), rest.strip()
        if word in ("DEFAULT", "ONTIMEOUT"):
            chosen[word] = rest
        elif word == "LABEL":
            label, title = rest, ""
        elif re.match(r"menu\s+label\s", line.strip(), re.IGNORECASE):
            title = re.sub(r"menu\s+label\s+", "", line.strip(), flags=re.IGNORECASE).replace("^", "")
        elif word in ("LINUX", "KERNEL", "FIT") and label and rest:
            image = rest if rest.startswith("/") else _beside(folder, rest)
            found.append(Entry(title or label, label, release_of(image), path=label, image=image))
            label = ""
    name = chosen.get("ONTIMEOUT") or chosen.get("DEFAULT")
    if name is None:
        return tuple(found), (found[0] if found else None)
    return tuple(found), next((entry for entry in found if entry.id == name), None)


def _beside(folder: str, image: str) -> str:
    """A path that is relative to the folder of the file: ../vmlinuz-6.1.0."""
    parts = folder.strip("/").split("/")
    for part in image.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
