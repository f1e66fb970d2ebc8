# SPDX-License-Identifier: GPL-2.0-or-later
"""Raspberry Pi's firmware: config.txt names the image, or it takes one by the model (documentation, "config.txt")."""

import re

from ejectable.host.bootloader.entry import Entry, release_of

__all__ = ["read_config"]

# What the firmware takes where `kernel=` names none: by the model and by arm_64bit.
BY_MODEL = ("kernel_2712.img", "kernel8.img", "kernel7l.img", "kernel7.img", "kernel.img")


def read_config(text: str) -> tuple[tuple[Entry, ...], Entry | None]:
    """The images that it may take, and the one that it takes; `None` where the model or a condition decides."""
    named: list[tuple[str, str]] = []
    section = "all"
    prefix = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()  # noqa: PLW2901
        if match := re.fullmatch(r"\[(.*)\]", line):
            section = match[1].lower()
        elif line.startswith("os_prefix="):
            prefix = line.partition("=")[2].strip()
        elif line.startswith("kernel="):
            named.append((section, line.partition("=")[2].strip()))
        elif line.startswith("include "):
            section = "an included file"
            named.append((section, ""))
    if not named:
        return tuple(_entry(name, prefix) for name in BY_MODEL), None
    menu = tuple(_entry(name, prefix) for _, name in named if name)
    return menu, (menu[-1] if menu and all(where == "all" for where, _ in named) else None)


def _entry(name: str, prefix: str) -> Entry:
    return Entry(name, f"kernel={name}", release_of(name), path=name, image=f"/{prefix}{name}")
