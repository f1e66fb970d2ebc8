# SPDX-License-Identifier: GPL-2.0-or-later
"""GRUB's menu as grub-mkconfig(8) writes it, and which entry is the default (GRUB manual, "Simple configuration")."""

import re
from collections.abc import Iterator, Mapping, Sequence

from ejectable.host.bootloader.entry import Entry, release_of

__all__ = ["chosen", "default_of", "entries", "environment"]

MENU = re.compile(
    r"\s{0,99}+(menuentry|submenu)\s{1,99}+(?:'([^']{0,1000})'|\"([^\"]{0,1000})\")(.{0,4000})\{\s{0,99}+$"
)
ID = re.compile(r"(?:\$menuentry_id_option|--id)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))")
LINUX = re.compile(r"\s{0,99}+linux(?:16|efi)?\s{1,99}+(\S{1,4096})")
DEFAULT = re.compile(r"^\s*set\s+default=(?:\"([^\"]*)\"|'([^']*)'|(\S+))\s*$", re.MULTILINE)
VARIABLE = re.compile(r"\$\{?(\w+)\}?")
MAX_DEPTH = 8


def environment(text: str) -> dict[str, str]:
    """The variables in a grubenv block."""
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def default_of(text: str, settings: Mapping[str, str]) -> tuple[str | None, str]:
    """Which entry is the default, and what says so: `next_entry`, `saved_entry`, or the number that is written there.

    grub.cfg sets it in two branches: from next_entry, which holds for one boot, and else the lasting one. Where it
    sets others as well, nothing here can tell which branch GRUB takes: then it is `None`.
    """
    if settings.get("next_entry"):
        return settings["next_entry"], "next_entry, for one boot"
    values = [a or b or c for a, b, c in DEFAULT.findall(text)]
    values = list(dict.fromkeys(value for value in values if "next_entry" not in value))
    if len(values) > 1:
        return None, f"default is set to {' and to '.join(values[:3])}"
    value = values[0] if values else "0"
    variable = VARIABLE.fullmatch(value)
    if variable is None:
        return value, f"entry {value}"
    saved = settings.get(variable[1], "")
    return saved or "0", f"{variable[1]}={saved}" if saved else f"{variable[1]} is not set: the first entry"


def entries(text: str) -> tuple[Entry, ...]:
    """The menu of a grub.cfg."""
    lines = iter(text.splitlines())
    return _menu(lines, "", 0)[0]


def _menu(lines: Iterator[str], above: str, depth: int) -> tuple[tuple[Entry, ...], str | None]:
    """The entries up to the brace that closes this block, and the image that the block itself loads."""
    found: list[Entry] = []
    image = None
    open_braces = 0
    for line in lines:
        match = MENU.match(line)
        if match:
            title = match[2] if match[2] is not None else match[3]
            given = ID.search(match[4])
            name = next(filter(None, given.groups()), title) if given else title
            path = f"{above}>{name}" if above else name
            inside, loads = _menu(lines, path, depth + 1) if depth < MAX_DEPTH else ((), None)
            found.append(Entry(title, name, release_of(loads), inside, path, loads))
            continue
        if image is None and depth and (loaded := LINUX.match(line)):
            image = loaded[1]
        if line.strip() == "}" or line.strip().startswith("} "):
            if open_braces == 0 and depth:
                return tuple(found), image
            open_braces = max(0, open_braces - 1)
        if line.rstrip().endswith("{"):
            open_braces += 1
    return tuple(found), image


def chosen(menu: Sequence[Entry], default: str) -> Entry | None:
    """The entry that a default leads to: a number, an id or a title, and the same inside a submenu behind a `>`."""
    here, _, rest = default.partition(">")
    entry = None
    if here.isdecimal() and len(here) < 6 and int(here) < len(menu):
        entry = menu[int(here)]
    for one in menu:
        if here in (one.id, one.title):
            entry = one
            break
    if entry is None:
        # GRUB takes the first entry where the default names none (grub-core/normal/menu.c, get_entry_number).
        entry = menu[0] if menu else None
        rest = ""
    if entry is not None and entry.inside:
        return chosen(entry.inside, rest or "0")
    return entry
