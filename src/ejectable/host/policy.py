# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine is set up to do when its kernel fails, and whether legacy driving is forced upon it."""

import re

import msgspec

from ejectable.host.root import Root

__all__ = [
    "MODPROBE_FOLDERS",
    "MODPROBE_LIMIT",
    "Policy",
    "forced_legacy",
    "means_yes",
    "modprobe_files",
    "read_policy",
]

MODPROBE_FOLDERS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
MODPROBE_LIMIT = 1 << 20


class Policy(msgspec.Struct, frozen=True):
    """What an Oops leads to; `None` is not known."""

    panic_on_oops: bool | None
    panic: int | None  # seconds until it restarts; 0 never, negative at once
    kdump: bool | None  # a crash kernel is loaded


def read_policy(root: Root) -> Policy:
    """The policy of the running kernel: Documentation/admin-guide/sysctl/kernel.rst."""
    on_oops = root.number("/proc/sys/kernel/panic_on_oops")
    loaded = root.number("/sys/kernel/kexec_crash_loaded")
    return Policy(
        panic_on_oops=None if on_oops is None else on_oops != 0,
        panic=root.number("/proc/sys/kernel/panic"),
        kdump=None if loaded is None else loaded != 0,
    )


def forced_legacy(root: Root, command_line: str | None) -> tuple[str, ...]:
    """Where `virtio_pci.force_legacy` is asked for, so that it can be taken away: one phrase a place."""
    places = []
    for word in (command_line or "").split():
        # The kernel takes - for _ in a parameter's name (kernel/params.c, dash2underscore).
        name, equals, value = word.partition("=")
        if name.replace("-", "_") == "virtio_pci.force_legacy":
            places = ["the kernel command line"] if means_yes(value if equals else None) else []
    for path in modprobe_files(root):
        # A backslash at the end of a line continues it: modprobe.d(5).
        text = re.sub(r"\\\r?\n", " ", root.text(path, MODPROBE_LIMIT) or "")
        for line in text.splitlines():
            match = re.match(r"\s*options\s+virtio[-_]pci\s+(.*)", line)
            words = (word.partition("=") for word in match[1].split()) if match else ()
            if any(
                re.fullmatch("force[-_]legacy", name) and means_yes(value if eq else None) for name, eq, value in words
            ):
                places.append(path)
                break
    return tuple(dict.fromkeys(places))


def modprobe_files(root: Root) -> tuple[str, ...]:
    """The files that modprobe reads, in its order: of those with one name only the first folder's (modprobe.d(5))."""
    chosen: dict[str, str] = {}
    for folder in MODPROBE_FOLDERS:
        for name in root.list(folder) or ():
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{folder}/{name}")
    return tuple(chosen[name] for name in sorted(chosen))


def means_yes(value: str | None) -> bool:
    """What the kernel makes of the value of a boolean parameter; a bare name means yes.

    kstrtobool() looks at the first letter, and for `off` at the second one too (lib/kstrtox.c).
    """
    return value is None or not (value[:1] in tuple("0nNfF") or value[:2].lower() == "of")
