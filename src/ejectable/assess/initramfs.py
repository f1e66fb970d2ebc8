# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules in a kernel's initramfs: they are what the boot loads, whatever lies below /lib/modules."""

import re
from collections.abc import Collection, Iterator

from ejectable import host
from ejectable.errors import Denied, EjectableError, Missing
from ejectable.intake.limits import Limits
from ejectable.intake.module_files import module_name
from ejectable.model import Doubt, DoubtKind

__all__ = ["modules_in", "names"]

EARLY = re.compile(r"early_cpio|kernel/(?:x86/microcode|firmware/acpi)/.*")  # what comes before the root that is booted


def names(root: host.Root, release: str) -> tuple[str, ...]:
    """The names of the initial file systems of a release that are in /boot; those for a crash kernel do not count."""
    return tuple(
        name
        for name in root.list("/boot") or ()
        if name.startswith(("initrd", "initramfs"))
        and re.search(rf"-{re.escape(release)}(?:\.img)?$", name)
        and "kdump" not in name
    )


def _paths(root: host.Root, release: str, image: str) -> Iterator[str]:
    """Where the initramfs of an image may be: in /boot, or beside it as kernel-install(8) and Raspberry Pi lay it."""
    folder, _, file = image.rpartition("/")
    suffixes = {release, file.partition("-")[2]} - {""}
    yield from dict.fromkeys(f"/boot/{name}" for suffix in sorted(suffixes) for name in names(root, suffix))
    if folder != "/boot":
        for name in root.list(folder) or ():
            if re.fullmatch(r"(?:initrd|initramfs)[^/]*", name) and "kdump" not in name:
                yield f"{folder}/{name}"


def modules_in(
    root: host.Root, release: str, image: str, modules: Collection[str], limits: Limits
) -> tuple[list[tuple[str, bytes]], list[Doubt]]:
    """The files of these modules in the initramfs of an image, each with a name and its content, and what was not seen.

    No initramfs and none of a module in it are complete answers: then the module on disk is what is loaded.
    """
    found: list[tuple[str, bytes]] = []
    doubts: list[Doubt] = []
    for path in _paths(root, release, image):
        try:
            found += _modules(root, path, release, modules, limits)
        except EjectableError as error:
            kind = DoubtKind.PERMISSION if isinstance(error, Denied) else DoubtKind.UNREADABLE
            which = f"the {next(iter(modules))}" if len(modules) == 1 else "what"
            detail = f"{path} could not be read, and {which} in it is what a boot loads: {error.message}"
            doubts.append(Doubt(kind, path, detail))
    return found, doubts


def _modules(
    root: host.Root, path: str, release: str, modules: Collection[str], limits: Limits
) -> list[tuple[str, bytes]]:
    from ejectable.kernel.containers.cpio import initramfs_entries

    below = re.compile(rf"(?:usr/)?lib/modules/{re.escape(release)}/.*")
    found: list[tuple[str, bytes]] = []
    whole = False
    with root.open(path) as stream:
        for entry in initramfs_entries(stream, name=path, limit=limits.unpacked):
            whole = whole or not EARLY.fullmatch(entry.name)
            if module_name(entry.name) in modules and below.fullmatch(entry.name):
                found.append((f"{path}({entry.name})", entry.read()))
    if not whole:
        # Only the archive with the processor's microcode was understood; what is behind it is the file system.
        raise Missing(f"{path} holds no file system in a form that is known.")
    return found
