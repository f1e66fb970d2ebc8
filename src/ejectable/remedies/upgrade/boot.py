# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel boots next, and what would make it another one.

Read from what the boot loaders themselves read: GRUB's grub.cfg and grubenv (with the Boot Loader Specification's
entries where it loads them, as on Fedora and Red Hat), systemd-boot's loader.conf. Where none can be read, the links
and names in /boot tell, which is a guess.
"""

import fnmatch
import re
from collections.abc import Sequence

import msgspec

from ejectable import host
from ejectable.remedies.commands import paste
from ejectable.remedies.upgrade.flavour import natural
from ejectable.remedies.upgrade.grub import Entry, chosen, default_of, entries, environment

__all__ = ["Boots", "boots_next"]

GRUB = ("/boot/grub", "/boot/grub2")
BLS = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")
LOADER = ("/efi/loader/loader.conf", "/boot/loader/loader.conf", "/boot/efi/loader/loader.conf")
MAX_CONFIG = 4 << 20
MAX_ENTRIES = 512
# systemd-boot keeps what `bootctl set-default` chose in an EFI variable, which comes before loader.conf.
EFI_DEFAULT = "/sys/firmware/efi/efivars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class Boots(msgspec.Struct, frozen=True):
    """What boots next."""

    release: str | None  # None: it cannot be told
    how: str  # what decides that: "GRUB_DEFAULT=saved: saved_entry in /boot/grub2/grubenv"
    certain: bool  # a boot loader's own files said so
    loader: str = ""  # grub, bls, systemd-boot
    menu: tuple[Entry, ...] = ()

    def instead(self, release: str) -> tuple[str, ...]:
        """The commands that make `release` boot next."""
        entry = next((one for one in _flat(self.menu) if one.release == release), None)
        if self.loader == "bls":
            return (paste(["sudo", "grubby", "--set-default", f"/boot/vmlinuz-{release}"]),)
        if self.loader == "systemd-boot" and entry is not None:
            return (paste(["sudo", "bootctl", "set-default", f"{entry.id}.conf"]),)
        if self.loader == "grub" and entry is not None:
            saved = "GRUB_DEFAULT=saved" in self.how
            command = "grub2-set-default" if "/boot/grub2" in self.how else "grub-set-default"
            # Without GRUB_DEFAULT=saved only the next boot can be chosen, unless the setting itself is changed.
            once = command.replace("set-default", "reboot")
            return (paste(["sudo", command if saved else once, entry.path]),)
        return ()


def boots_next(root: host.Root) -> Boots:
    """Which kernel boots next, as far as the files of the boot loader tell."""
    for folder in GRUB:
        text = root.text(f"{folder}/grub.cfg", MAX_CONFIG)
        if text:
            return _grub(root, folder, text)
        if root.exists(f"{folder}/grub.cfg"):
            return _guess(root, f"{folder}/grub.cfg may not be read by this user; links and names in /boot")
    for path in LOADER:
        text = root.text(path)
        if text is not None:
            return _systemd_boot(root, path, text)
    return _guess(root, "links and names in /boot")


def _guess(root: host.Root, how: str) -> Boots:
    return Boots(host.boots_next(root), how, certain=False)


def _grub(root: host.Root, folder: str, text: str) -> Boots:
    settings = environment(root.text(f"{folder}/grubenv", 1 << 16) or "")
    default, why = default_of(text, settings)
    said = re.findall(r"^\s*GRUB_DEFAULT=(.*)$", root.text("/etc/default/grub") or "", re.MULTILINE)
    how = f"{why} ({folder}/grub.cfg{f', GRUB_DEFAULT={said[-1].strip()}' if said else ''})"
    loader = "bls" if re.search(r"^\s*blscfg\b", text, re.MULTILINE) else "grub"
    menu = _bls(root) if loader == "bls" else ()
    menu = menu or entries(text)
    entry = chosen(menu, default)
    if entry is None or entry.release is None:
        return Boots(None, f"{how}: no entry of the menu fits", certain=False, loader=loader, menu=menu)
    return Boots(entry.release, how, certain=True, loader=loader, menu=menu)


def _systemd_boot(root: host.Root, path: str, text: str) -> Boots:
    menu = _bls(root)
    match = re.search(r"^\s*default\s+(\S+)", text, re.MULTILINE)
    pattern = (match[1] if match else "*").removesuffix(".conf")
    fitting = [entry for entry in menu if fnmatch.fnmatchcase(entry.id, pattern)] or list(menu)
    how = f"default {pattern} ({path})"
    if not fitting or root.exists(EFI_DEFAULT):
        which = "an EFI variable decides" if fitting else "no entry fits"
        return Boots(None, f"{how}: {which}", certain=False, loader="systemd-boot", menu=menu)
    return Boots(fitting[0].release, how, certain=fitting[0].release is not None, loader="systemd-boot", menu=menu)


def _bls(root: host.Root) -> tuple[Entry, ...]:
    """The entries of the Boot Loader Specification, the newest first (UAPI.1, "Sorting")."""
    found = []
    for folder in BLS:
        for name in (root.list(folder) or ())[:MAX_ENTRIES]:
            if not name.endswith(".conf"):
                continue
            keys = dict(re.findall(r"^([a-z-]+)[ \t]+(.+?)[ \t]*$", root.text(f"{folder}/{name}") or "", re.MULTILINE))
            image = keys.get("linux") or keys.get("efi") or ""
            release = keys.get("version") or _release_of(image)
            entry = name.removesuffix(".conf")
            found.append(Entry(keys.get("title", ""), entry, release, path=entry))
        if found:
            break
    return tuple(sorted(found, key=lambda entry: natural(entry.release or entry.id), reverse=True))


def _release_of(image: str) -> str | None:
    """From the path of an image: /vmlinuz-RELEASE, or /MACHINE-ID/RELEASE/linux as kernel-install(8) lays it out."""
    folder, _, name = image.rpartition("/")
    return name.partition("-")[2] or (folder.rpartition("/")[2] if name == "linux" else "") or None


def _flat(menu: Sequence[Entry]) -> list[Entry]:
    return [one for entry in menu for one in (entry, *_flat(entry.inside))]
