# SPDX-License-Identifier: GPL-2.0-or-later
"""The entries of the Boot Loader Specification (UAPI.1), and which of them systemd-boot takes (loader.conf(5))."""

import fnmatch
import re
from collections.abc import Sequence

from ejectable.host.bootloader.entry import Entry, release_of
from ejectable.host.installed import natural
from ejectable.host.root import Root

__all__ = ["bls_entries", "default_entry"]

FOLDERS = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")
MAX_ENTRIES = 512


def bls_entries(root: Root) -> tuple[Entry, ...]:
    """The entries, the newest first (UAPI.1, "Sorting")."""
    found = []
    for folder in FOLDERS:
        for name in (root.list(folder) or ())[:MAX_ENTRIES]:
            if not name.endswith(".conf"):
                continue
            keys = dict(re.findall(r"^([a-z-]+)[ \t]+(.+?)[ \t]*$", root.text(f"{folder}/{name}") or "", re.MULTILINE))
            image = keys.get("linux") or keys.get("efi")
            release = keys.get("version") or release_of(image)
            entry = name.removesuffix(".conf")
            found.append(Entry(keys.get("title", ""), entry, release, path=entry, image=image))
        if found:
            break
    return tuple(sorted(found, key=lambda entry: natural(entry.release or entry.id), reverse=True))


def default_entry(menu: Sequence[Entry], text: str, path: str) -> tuple[Entry | None, str]:
    """The entry that loader.conf chooses by its pattern, else the first; and what says so."""
    match = re.search(r"^\s*default\s+(\S+)", text, re.MULTILINE)
    pattern = (match[1] if match else "*").removesuffix(".conf")
    how = f"default {pattern} ({path})"
    if pattern.startswith("@"):  # @saved: the last one that was booted, kept in an EFI variable
        return None, how
    fitting = [entry for entry in menu if fnmatch.fnmatchcase(entry.id, pattern)] or list(menu)
    return (fitting[0] if fitting else None), how
