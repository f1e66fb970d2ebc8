# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that make anew what is made of the settings on disk: the boot menu, and the initramfs of each kernel."""

from typing import TYPE_CHECKING

from ejectable.errors import Missing
from ejectable.remedies.commands import run_checked
from ejectable.remedies.steps.base import System

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["RenewInitramfs", "RenewMenu"]

RENEW_S = 1800.0  # every kernel's initramfs, on a slow disk
HINT = "Put right what it names, then try again."


class RenewMenu(System, frozen=True, tag="renew-menu"):
    """GRUB's menu, made anew after its settings were changed; and once more after they were changed back."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return "renewed the boot menu"

    def renew(self, root: "host.Root") -> None:
        """Run this machine's own program for it; raises `Missing` where there is none, or where it fails."""
        from ejectable.remedies.boot_images import menu_program

        argv = menu_program(root)
        if argv is None:
            raise Missing("No program that makes the boot menu was found.", hint="Make it anew by hand.")
        run_checked(argv, timeout_s=RENEW_S, hint=HINT)

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        self.renew(root)
        return True


class RenewInitramfs(System, frozen=True, tag="renew-initramfs"):
    """The initramfs of every kernel, made anew after modprobe.d was changed; and again after it was changed back."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return "renewed the initramfs of every kernel"

    def renew(self, root: "host.Root") -> None:
        """Run this machine's own program for it; raises `Missing` where there is none, or where it fails."""
        from ejectable.remedies.boot_images import initramfs_program

        del root
        argv = initramfs_program()
        if argv is None:
            raise Missing("No program that makes the initramfs was found.", hint="Make it anew by hand.")
        run_checked(argv, timeout_s=RENEW_S, hint=HINT)

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        self.renew(root)
        return True
