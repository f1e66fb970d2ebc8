# SPDX-License-Identifier: GPL-2.0-or-later
"""Rebuilds the boot menu and the initramfs of each kernel after settings on disk were changed."""

import re

from ejectable.errors import EjectableError
from ejectable.host import Root
from ejectable.host.policy import MODPROBE_FOLDERS, MODPROBE_LIMIT
from ejectable.intake import Limits
from ejectable.kernel.containers.cpio import initramfs_entries
from ejectable.remedies.commands import which
from ejectable.remedies.legacy_places import edited

__all__ = ["initramfs_program", "initramfs_that_asks", "menu_program"]

MOST_IMAGES = 16
IMAGE = re.compile(r"(?:initrd\.img|initramfs|initrd)-[\w.+~-]+?(?:\.img)?")


def menu_program(root: Root) -> list[str] | None:
    """The program that makes GRUB's menu anew on this machine, where there is one."""
    if which("update-grub"):
        return ["update-grub"]
    for program, menu in (("grub2-mkconfig", "/boot/grub2/grub.cfg"), ("grub-mkconfig", "/boot/grub/grub.cfg")):
        if which(program) and root.is_file(menu):
            return [program, "-o", menu]
    return None


def initramfs_program() -> list[str] | None:
    """The program that makes every initramfs of this machine anew, where there is one."""
    for argv in (
        ["update-initramfs", "-u", "-k", "all"],
        ["dracut", "--force", "--regenerate-all"],
        ["mkinitcpio", "-P"],
    ):
        if which(argv[0]):
            return argv
    return None


def initramfs_that_asks(root: Root, limits: Limits) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(images whose modprobe.d asks for legacy driving, images that could not be read), as paths from the root."""
    asking: list[str] = []
    unread: list[str] = []
    names = [name for name in root.list("/boot") or () if IMAGE.fullmatch(name) and not name.endswith((".bak", ".old"))]
    for name in names[:MOST_IMAGES]:
        path = f"/boot/{name}"
        if not root.is_file(path):
            continue
        try:
            if any(edited(text, "modprobe") != text for text in _settings(root, path, limits)):
                asking.append(path)
        except EjectableError:
            unread.append(path)
    return tuple(asking), tuple(unread)


def _settings(root: Root, path: str, limits: Limits) -> list[str]:
    """The files of modprobe.d in an image that modprobe would read: of those with one name only the first folder's."""
    chosen: dict[str, tuple[int, str]] = {}
    with root.open(path) as stream:
        for entry in initramfs_entries(stream, name=path, limit=limits.unpacked):
            folder, _, file = f"/{entry.name}".rpartition("/")
            if folder not in MODPROBE_FOLDERS or not file.endswith(".conf") or entry.size > MODPROBE_LIMIT:
                continue
            rank = MODPROBE_FOLDERS.index(folder)
            if file not in chosen or rank <= chosen[file][0]:  # of two archives in a row the later one is unpacked over
                chosen[file] = rank, entry.read().decode("utf-8", "surrogateescape")
    return [text for _, text in chosen.values()]
