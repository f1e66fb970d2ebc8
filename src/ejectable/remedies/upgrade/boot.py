# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel boots next, in words, and what makes another one boot, by the boot loader that decides."""

from ejectable.host import NextBoot
from ejectable.host.bootloader.entry import flat
from ejectable.remedies.commands import paste

__all__ = ["instead", "not_next"]


def instead(boots: NextBoot, release: str) -> tuple[str, ...]:
    """The commands that make `release` boot next; nothing where no command of the boot loader is known."""
    entry = next((one for one in flat(boots.menu) if one.release == release), None)
    if boots.loader == "bls":
        return (paste(["sudo", "grubby", "--set-default", f"/boot/vmlinuz-{release}"]),)
    if boots.loader == "systemd-boot" and entry is not None:
        return (paste(["sudo", "bootctl", "set-default", f"{entry.id}.conf"]),)
    if boots.loader == "grub" and entry is not None:
        saved = "GRUB_DEFAULT=saved" in boots.how
        command = "grub2-set-default" if "/boot/grub2" in boots.how else "grub-set-default"
        # Without GRUB_DEFAULT=saved only the next boot can be chosen, unless the setting itself is changed.
        once = command.replace("set-default", "reboot")
        return (paste(["sudo", command if saved else once, entry.path]),)
    return ()


def not_next(boots: NextBoot, release: str) -> str:
    """Why it is not certain that `release` boots next, as a sentence; for a kernel of which it is not."""
    if boots.release == release:
        return f"It may boot next, but that is not certain ({boots.how})."
    if boots.release is None:
        return f"Which kernel boots next could not be told: {boots.how}."
    return f"But {boots.release} {'boots' if boots.certain else 'may boot'} next ({boots.how})."
