# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel boots next: asked of every boot loader whose files are there.

GRUB (grub.cfg and grubenv, with the entries of the Boot Loader Specification where it loads them, as on Fedora and Red
Hat), systemd-boot, extlinux and U-Boot's reading of it, Raspberry Pi's firmware. zipl is named as not read. Where no
boot loader tells, or two tell different things, links and names in /boot are a guess, and said to be one.
"""

import re
from collections.abc import Iterator

import msgspec

from ejectable.host.bootloader.entry import MOUNTS, Entry, flat, image_of
from ejectable.host.bootloader.extlinux import read_extlinux
from ejectable.host.bootloader.grub import chosen, default_of, entries, environment
from ejectable.host.bootloader.raspberry import read_config
from ejectable.host.bootloader.specification import bls_entries, default_entry
from ejectable.host.installed import newest_by_name
from ejectable.host.root import Root

__all__ = ["Entry", "NextBoot", "boots_next"]

GRUB = ("/boot/grub", "/boot/grub2")
VENDORS = "/boot/efi/EFI"  # its folders hold GRUB's files on older Fedora and Red Hat
LOADER = ("/efi/loader/loader.conf", "/boot/loader/loader.conf", "/boot/efi/loader/loader.conf")
EXTLINUX = ("/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf", "/boot/syslinux/syslinux.cfg")
RASPBERRY = ("/boot/firmware/config.txt", "/boot/config.txt")
ZIPL = ("/etc/zipl.conf", "/boot/bootmap")
MAX_CONFIG = 4 << 20
# systemd-boot keeps what `bootctl set-default` and `set-oneshot` chose in EFI variables, which come before loader.conf.
EFI_VARIABLES = "/sys/firmware/efi/efivars"
EFI_DEFAULTS = ("LoaderEntryDefault-", "LoaderEntryOneShot-")
UNIFIED = ("/efi/EFI/Linux", "/boot/EFI/Linux", "/boot/efi/EFI/Linux")


class NextBoot(msgspec.Struct, frozen=True):
    """What boots next."""

    release: str | None  # None: it cannot be told
    how: str  # what decides that: "GRUB_DEFAULT=saved: saved_entry in /boot/grub2/grubenv"
    certain: bool  # a boot loader's own files said so, and no other one's say otherwise
    loader: str = ""  # grub, bls, systemd-boot, extlinux, raspberry-pi
    menu: tuple[Entry, ...] = ()
    image: str | None = None  # where its file is, from the root

    @property
    def images(self) -> tuple[str, ...]:
        """The images that the menu names, as the boot loader writes them."""
        return tuple(dict.fromkeys(entry.image for entry in flat(self.menu) if entry.image))


def boots_next(root: Root) -> NextBoot:
    """Which kernel boots next, as far as the files of the boot loaders tell."""
    told = list(_loaders(root))
    if not told:
        return _guess(root, "links and names in /boot")
    first = told[0]
    others = [one for one in told[1:] if (one.release, one.image) != (first.release, first.image)]
    if others:
        how = f"{first.how}; but {others[0].loader} is there too: {others[0].how}"
        menu = tuple(entry for one in told for entry in one.menu)
        return msgspec.structs.replace(first, how=how, certain=False, menu=menu)
    return first


def _loaders(root: Root) -> Iterator[NextBoot]:
    """What each boot loader says that has its files here."""
    vendors = [f"{VENDORS}/{name}" for name in root.list(VENDORS) or ()]
    for folder in (*GRUB, *vendors):
        text = root.text(f"{folder}/grub.cfg", MAX_CONFIG)
        # A vendor's folder may hold a few lines that lead to the menu in /boot.
        if text and (folder in GRUB or re.search(r"^\s*(?:menuentry|blscfg)\b", text, re.MULTILINE)):
            yield _grub(root, folder, text)
        elif text is None and root.exists(f"{folder}/grub.cfg"):
            yield _guess(root, f"{folder}/grub.cfg may not be read by this user; links and names in /boot")
    for path in LOADER:
        if (text := root.text(path)) is not None:
            yield _systemd_boot(root, path, text)
    for path in EXTLINUX:
        if (text := root.text(path)) is not None:
            yield _one_of(root, read_extlinux(text, path.rpartition("/")[0]), path, "extlinux")
    for path in RASPBERRY:
        if (text := root.text(path)) is not None:
            yield _one_of(root, read_config(text), path, "raspberry-pi")
            break
    zipl = next((path for path in ZIPL if root.exists(path)), None)
    if zipl is not None:
        yield msgspec.structs.replace(_guess(root, f"{zipl} is zipl's, whose menu is not read"), loader="zipl")


def _guess(root: Root, how: str) -> NextBoot:
    return NextBoot(newest_by_name(root), how, certain=False)


def _grub(root: Root, folder: str, text: str) -> NextBoot:
    block = root.text(f"{folder}/grubenv", 1 << 16)
    default, why = default_of(text, environment(block or ""))
    said = re.findall(r"^\s*GRUB_DEFAULT=(.*)$", root.text("/etc/default/grub") or "", re.MULTILINE)
    how = f"{why} ({folder}/grub.cfg{f', GRUB_DEFAULT={said[-1].strip()}' if said else ''})"
    loader = "bls" if re.search(r"^\s*blscfg\b", text, re.MULTILINE) else "grub"
    menu = bls_entries(root) if loader == "bls" else ()
    menu = menu or entries(text)
    entry = chosen(menu, default) if default is not None else None
    if entry is None or entry.release is None:
        return NextBoot(None, f"{how}: no entry of the menu fits", certain=False, loader=loader, menu=menu)
    # next_entry may be in a block that this user may not read.
    certain = block is not None or not root.exists(f"{folder}/grubenv")
    return NextBoot(entry.release, how, certain, loader, menu, image_of(root, entry.image))


def _systemd_boot(root: Root, path: str, text: str) -> NextBoot:
    menu = bls_entries(root)
    entry, how = default_entry(menu, text, path)
    if entry is None or entry.release is None:
        return NextBoot(None, f"{how}: no entry fits", certain=False, loader="systemd-boot", menu=menu)
    variables = root.list(EFI_VARIABLES)
    if any(name.startswith(EFI_DEFAULTS) for name in variables or ()):
        return NextBoot(None, f"{how}: an EFI variable decides", certain=False, loader="systemd-boot", menu=menu)
    unified = [folder for folder in UNIFIED if root.list(folder)]
    if unified:
        how += f"; the images in {unified[0]} are not read"
    # The variables are in the firmware: a tree does not have them.
    certain = bool(variables) and not unified
    return NextBoot(entry.release, how, certain, "systemd-boot", menu, image_of(root, entry.image))


def _one_of(root: Root, read: tuple[tuple[Entry, ...], Entry | None], path: str, loader: str) -> NextBoot:
    """What a simple menu says: its entries, and the default where there is one."""
    menu, entry = read
    # The firmware of a Raspberry Pi reads the folder that config.txt is in.
    mounts = (path.rpartition("/")[0],) if loader == "raspberry-pi" else MOUNTS
    if entry is None:
        return NextBoot(None, f"{path} names no default", certain=False, loader=loader, menu=menu)
    image = image_of(root, entry.image, mounts)
    release = entry.release or (image or "").rpartition("/")[2].partition("-")[2] or None
    how = f"{entry.id} ({path})"
    return NextBoot(release, how, image is not None or release is not None, loader, menu, image)
