# SPDX-License-Identifier: GPL-2.0-or-later
"""Which file of a module the kernel loads: what modules.dep names, else the search order of depmod.

Pure functions over names below lib/modules/RELEASE, so that a package, a folder and a machine give the same answer.
modprobe goes by modules.dep alone (modules.dep(5)). depmod, which writes it, takes of two modules of one name the one
whose folder comes first in `search` (depmod.d(5)). `updates` is first everywhere. The rest is what Fedora and Red Hat
ship, whose folders extra and weak-updates are: `search updates extra built-in weak-updates`; what is in none of them
counts as built-in.
"""

import re
from collections.abc import Iterable

__all__ = ["MODULE_SUFFIX", "by_precedence", "listed", "module_name", "module_names"]

MODULE_SUFFIX = r"\.ko(?:\.gz|\.xz|\.zst)?"
SUFFIX = re.compile(rf"{MODULE_SUFFIX}$")
SEARCH = {"updates": 0, "extra": 1, "weak-updates": 3}
BUILT_IN = 2


def module_name(file: str) -> str | None:
    """The module's name by its file's, `virtio_pci` for "virtio-pci.ko.xz"; `None` if it is no module's file."""
    base = file.rpartition("/")[2]
    stem = SUFFIX.sub("", base)
    return stem.replace("-", "_") if stem != base else None


def module_names(text: bytes) -> frozenset[str]:
    """The modules in a list of files, one a line: modules.builtin, modules.order."""
    names = (module_name(line.strip()) for line in text.decode("utf-8", "replace").splitlines())
    return frozenset(name for name in names if name)


def listed(dep: bytes, module: str) -> str | None:
    """The file of a module that modules.dep names, as it is spelt there; `None` where it names none.

    A line is `FILE: FILES IT NEEDS` (modules.dep(5)); files are relative to the list's folder, or absolute.
    """
    for line in dep.decode("utf-8", "replace").splitlines():
        file, colon, _ = line.partition(":")
        if colon and module_name(file.strip()) == module:
            return file.strip()
    return None


def by_precedence(files: Iterable[str], dep: bytes | None, module: str) -> list[str]:
    """The files of one module, relative to lib/modules/RELEASE, the one that is loaded first."""
    named = listed(dep, module) if dep is not None else None

    def rank(file: str) -> tuple[bool, int, str]:
        return file != named, SEARCH.get(file.partition("/")[0], BUILT_IN), file

    return sorted(set(files), key=rank)
