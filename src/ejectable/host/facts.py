# SPDX-License-Identifier: GPL-2.0-or-later
"""All that `check` knows of a machine, read once."""

import os

import msgspec

from ejectable.host.devices import read_devices
from ejectable.host.identity import container, read_host
from ejectable.host.live_repair import LiveRepair, read_live_repair
from ejectable.host.policy import Policy, forced_legacy, read_policy
from ejectable.host.root import Root
from ejectable.host.running import Running, read_running
from ejectable.host.slots import Slots
from ejectable.model import Device, Doubt, Host

__all__ = ["Facts", "read"]


class Facts(msgspec.Struct, frozen=True):
    """A machine, as its files show it."""

    host: Host
    running: Running | None  # None: nothing runs here, it is a mounted image
    devices: tuple[Device, ...] | None  # None: sysfs could not be seen
    doubts: tuple[Doubt, ...]  # what was not seen: there may be more devices than those
    policy: Policy
    container: str | None
    forced_legacy: tuple[str, ...]  # the places that ask for it
    live: bool  # this very machine, not a tree
    superuser: bool
    denied: tuple[str, ...]  # what this user could not read
    live_repair: LiveRepair = LiveRepair()  # what `fix live` has left


def read(root: Root) -> Facts:
    """Read the machine below `root`."""
    running = read_running(root)
    found = read_devices(root, Slots(root))
    facts = {
        "host": read_host(root, running),
        "policy": read_policy(root),
        "container": container(root),
        "live_repair": read_live_repair(root),
        "forced_legacy": forced_legacy(root, running.command_line if running else None),
    }
    return Facts(
        running=running,
        devices=found.devices,
        doubts=found.doubts,
        live=root.live,
        superuser=os.geteuid() == 0,
        denied=tuple(sorted(root.denied)),
        **facts,  # type: ignore[arg-type]  # spelled out above: the order of reading decides what `denied` holds
    )
