# SPDX-License-Identifier: GPL-2.0-or-later
"""Where `virtio_pci.force_legacy` is asked for at boot, and each of these files without it.

Two ways lead to the driver: the kernel's command line, which a boot loader keeps in one file or another, and the
options of modprobe.d(5), which only a driver that is a module sees.
"""

import fnmatch
import re
from typing import Literal

import msgspec

from ejectable import host
from ejectable.host.policy import MODPROBE_LIMIT, means_yes, modprobe_files

__all__ = [
    "FILES",
    "Place",
    "command_lines",
    "edited",
    "files_that_might",
    "find_places",
    "in_unified_images",
    "override_of",
]

Kind = Literal["command-line", "menu", "modprobe", "by-hand"]

# Files that hold a command line, as patterns of paths: grub-mkconfig's settings, the Boot Loader Specification's
# entries (type 1), grub2's environment block (RHEL 8), kernel-install(8), extlinux, u-boot-menu, PV-GRUB.
COMMAND_LINES = (
    "/etc/default/grub",
    "/etc/default/grub.d/*.cfg",
    "/etc/kernel/cmdline",
    "/usr/lib/kernel/cmdline",
    "/boot/loader/entries/*.conf",
    "/boot/efi/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
    "/boot/grub2/grubenv",
    "/boot/grub/grubenv",
    "/boot/efi/EFI/*/grubenv",
    "/etc/default/u-boot",
    "/etc/default/extlinux",
    "/boot/extlinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/grub/menu.lst",
)
# What grub-mkconfig makes of them.
MENUS = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/*/grub.cfg")
# Every file that is ever edited, as regular expressions of whole paths.
FILES = (
    *(fnmatch.translate(pattern).replace(".*", "[^/]*") for pattern in (*COMMAND_LINES, *MENUS)),
    r"/etc/modprobe\.d/[^/]+\.conf",
)
# Programs and settings of programs: what they do with the word is theirs to know.
SCRIPTS = ("/etc/grub.d/*", "/etc/dracut.conf", "/etc/dracut.conf.d/*.conf")
UNIFIED = ("/boot/efi/EFI/Linux/*.efi", "/efi/EFI/Linux/*.efi", "/boot/EFI/Linux/*.efi")
LIMIT = 4 << 20  # a grub.cfg of a machine with many kernels has some 50 KiB
UNIFIED_LIMIT = 256 << 20
WORD = re.compile(r"(?<![\w./$-])virtio[-_]pci\.force[-_]legacy(?:=([^\s\"'\\;]*))?(?![\w=.-])")
OPTION = re.compile(r"(?<![\w./$-])force[-_]legacy(?:=(\S*))?(?!\S)")
OPTIONS = re.compile(r"[ \t]*options[ \t]+virtio[-_]pci(?=[ \t\\]|$)")
INSTALL = re.compile(r"[ \t]*install[ \t]+virtio[-_]pci\b.*\bforce[-_]legacy")
GRUBENV = 1024  # grub's environment block is this long, padded with # (grub manual, "Environment block")


class Place(msgspec.Struct, frozen=True):
    """A file that asks for it; `line` counts from 1."""

    path: str
    kind: Kind
    line: int
    text: str  # of the whole file


def find_places(root: host.Root) -> tuple[Place, ...]:
    """Every place on disk that asks for it, in the order in which they are best changed."""
    found: list[Place] = []
    kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("command-line", COMMAND_LINES),
        ("menu", MENUS),
        ("by-hand", SCRIPTS),
    )
    for kind, patterns in kinds:
        for path in _matching(root, patterns):
            text = _text(root, path, LIMIT) or ""
            if line := _asking_line(text, WORD):
                found.append(Place(path, kind, line, text))
    for path in modprobe_files(root):
        text = _text(root, path, MODPROBE_LIMIT) or ""
        lines = text.splitlines()
        if edited(text, "modprobe") != text:
            first = next((n for n, words in enumerate(lines, 1) if re.search("force[-_]legacy", words)), 1)
            found.append(Place(path, "modprobe", first, text))
        found += [Place(path, "by-hand", n, text) for n, words in enumerate(lines, 1) if INSTALL.match(words)]
    return tuple(found)


def files_that_might(root: host.Root) -> tuple[str, ...]:
    """The files here that could ask for it, whether they do or not."""
    return (*_matching(root, (*COMMAND_LINES, *MENUS)), *modprobe_files(root))


def edited(text: str, kind: Kind, path: str = "") -> str:
    """The file without what asks for it. Comments, other options and the rest of each line stay as they are."""
    if kind == "modprobe":
        return _without_option(text)
    lines = [line if line.lstrip().startswith("#") else _without(line, WORD) for line in text.splitlines(keepends=True)]
    after = "".join(lines)
    if path.endswith("/grubenv") and len(text.encode("utf-8", "surrogateescape")) == GRUBENV:
        after = after.rstrip("#")
        after += "#" * (GRUBENV - len(after.encode("utf-8", "surrogateescape")))
    return after


def command_lines(text: str) -> bool:
    """Whether a command line, as the kernel shows it, asks for it."""
    values = [match[1] for match in WORD.finditer(text)]
    return bool(values) and means_yes(values[-1])


def override_of(path: str) -> str:
    """Where a file is changed: what packages and the running system own is overridden in /etc, not edited."""
    name = path.rpartition("/")[2]
    if path.startswith("/etc/"):
        return path
    if "/modprobe.d/" in path:
        return f"/etc/modprobe.d/{name}"
    return "/etc/kernel/cmdline" if path == "/usr/lib/kernel/cmdline" else path


def in_unified_images(root: host.Root) -> tuple[str, ...]:
    """Unified kernel images whose built-in command line asks for it: they have to be built anew."""
    found = []
    for path in _matching(root, UNIFIED):
        data = root.read(path, UNIFIED_LIMIT) or b""
        for match in re.finditer(rb"virtio[-_]pci\.force[-_]legacy(?:=[^\s\0\"']*)?", data):
            if command_lines(match[0].decode("ascii", "replace")):
                found.append(path)
                break
    return tuple(found)


def _matching(root: host.Root, patterns: tuple[str, ...]) -> list[str]:
    """The files that are there, each once: /boot/efi and /efi may be one."""
    found: dict[str, str] = {}
    for pattern in patterns:
        paths = [""]
        for part in pattern.strip("/").split("/"):
            if "*" not in part:
                paths = [f"{path}/{part}" for path in paths]
            else:
                paths = [
                    f"{path}/{name}" for path in paths for name in fnmatch.filter(root.list(path or "/") or (), part)
                ]
        for path in paths:
            if root.file(path) and (real := root.resolve(path)) is not None:
                if pattern == "/usr/lib/kernel/cmdline" and "/etc/kernel/cmdline" in found.values():
                    continue  # kernel-install(8): the one in /etc is read instead
                found.setdefault(real, path)
    return list(found.values())


def _text(root: host.Root, path: str, limit: int) -> str | None:
    data = root.read(path, limit + 1)
    if data is None or len(data) > limit:
        return None
    return data.decode("utf-8", "surrogateescape")


def _asking_line(text: str, word: re.Pattern[str]) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#") and any(means_yes(match[1]) for match in word.finditer(line)):
            return number
    return 0


def _without(line: str, word: re.Pattern[str]) -> str:
    """A line without the word where it means yes, and without the blank that divided it from the next one."""
    out, at = "", 0
    for match in word.finditer(line):
        if not means_yes(match[1]):
            continue
        start, end = match.span()
        before = line[at:start]
        following = line[end : end + 1]
        if before.endswith((" ", "\t")) and (not following or following in " \t\"'\r\n"):
            before = before.rstrip(" \t")
        elif following in (" ", "\t"):
            end += len(line[end:]) - len(line[end:].lstrip(" \t"))
        out += before
        at = end
    return out + line[at:]


def _without_option(text: str) -> str:
    """modprobe.d: `options virtio_pci force_legacy=1 other=2`; lines may be continued with a backslash."""
    out = []
    for statement in re.findall(r"(?:[^\n\\]|\\\r?\n|\\)*\n|(?:[^\n\\]|\\\r?\n|\\)+\Z", text):
        head = OPTIONS.match(statement)
        if head is None or not any(means_yes(match[1]) for match in OPTION.finditer(statement, head.end())):
            out.append(statement)
            continue
        rest = _without(statement[head.end() :], OPTION)
        if re.sub(r"\\\r?\n", "", rest).strip():
            out.append(head[0] + rest)
    return "".join(out)
