# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine is set up to do when its kernel fails, and whether legacy driving is forced upon it."""

import re

import msgspec

from ejectable.host.root import Root

__all__ = ["Policy", "forced_legacy", "read_policy"]

MODPROBE_FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")


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
        # The kernel takes - for _ in a parameter's name (kernel/params.c, dash2underscore); a bare name means yes.
        name, _, value = word.partition("=")
        if name.replace("-", "_") == "virtio_pci.force_legacy":
            # kstrtobool() looks at the first letter, and for `off` at the second one too (lib/kstrtox.c).
            places = [] if value[:1] in tuple("0nNfF") or value[:2].lower() == "of" else ["the kernel command line"]
    for folder in MODPROBE_FOLDERS:
        for name in root.list(folder) or ():
            if not name.endswith(".conf"):
                continue
            for line in (root.text(f"{folder}/{name}") or "").splitlines():
                if re.match(r"\s*options\s+virtio[-_]pci\s(.*\s)?force[-_]legacy(=([1yYtT]|on|On|ON)|\s|$)", line):
                    places.append(f"{folder}/{name}")
                    break
    return tuple(dict.fromkeys(places))
