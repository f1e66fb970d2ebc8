# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of `fix live`: our own module in the kernel, its units in systemd, its sources in DKMS. They name no other."""

import re
from typing import TYPE_CHECKING

from ejectable.errors import Missing
from ejectable.host.running import oopsed
from ejectable.remedies.commands import run_checked
from ejectable.remedies.steps.base import System

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["AddToDkms", "EnableUnits", "LoadModule", "ReloadUnits", "StartUnits"]

MODULE = "ejectable_live"
SERVICE, TIMER = "ejectable-live.service", "ejectable-live-settled.timer"
DKMS_NAME = "ejectable-live"
UNDO_S = 600.0
VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,40}", re.ASCII)


class LoadModule(System, frozen=True, tag="load-module"):
    """Our module, loaded; unloaded when that is undone."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"loaded the module {MODULE}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        if not root.exists(f"/sys/module/{MODULE}"):
            return False
        if oopsed(root):
            raise Missing("This kernel has had an Oops: nothing is unloaded from it. Reboot.")
        run_checked(["rmmod", MODULE], timeout_s=UNDO_S)
        return True


class ReloadUnits(System, frozen=True, tag="reload-units"):
    """systemd was told of units that come; and is told again when they are gone: undone, it comes last."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return "told systemd of units that come and go"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        del root
        run_checked(["systemctl", "daemon-reload"], timeout_s=UNDO_S)
        return True


class EnableUnits(System, frozen=True, tag="enable-units"):
    """Our units, enabled for each boot."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"enabled {SERVICE} for each boot"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        if not root.exists(f"/etc/systemd/system/{SERVICE}"):
            return False
        run_checked(["systemctl", "disable", SERVICE, TIMER], timeout_s=UNDO_S)
        return True


class StartUnits(System, frozen=True, tag="start-units"):
    """Our units, started."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"started {SERVICE} and {TIMER}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        del root
        run_checked(["systemctl", "stop", SERVICE, TIMER], timeout_s=UNDO_S)
        return True


class AddToDkms(System, frozen=True, tag="add-to-dkms"):
    """The sources of our module in one version, given to DKMS and built by it; taken out of it when that is undone."""

    version: str

    def __post_init__(self) -> None:
        if not VERSION.fullmatch(self.version):
            raise ValueError("this is no version of ours")

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"gave {DKMS_NAME}/{self.version} to DKMS"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        if not root.exists(f"/var/lib/dkms/{DKMS_NAME}/{self.version}"):
            return False
        run_checked(["dkms", "remove", f"{DKMS_NAME}/{self.version}", "--all"], timeout_s=UNDO_S)
        return True
