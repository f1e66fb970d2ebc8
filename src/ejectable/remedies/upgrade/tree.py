# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan for a mounted image or a captured tree: from its files alone.

Its package manager is not asked: that would run whatever the tree's own configuration says (apt.conf and dnf's plugins
may name programs), on this machine.
"""

import re
import shlex
from typing import TYPE_CHECKING

from ejectable import host
from ejectable.model import Remedy
from ejectable.remedies.situation import Situation
from ejectable.remedies.upgrade.apt import owner_in
from ejectable.remedies.upgrade.boot import instead, not_next
from ejectable.remedies.upgrade.choice import manager_of
from ejectable.remedies.upgrade.flavour import flavour
from ejectable.remedies.upgrade.installed import ready

if TYPE_CHECKING:
    from ejectable.remedies.remediation import Remediation

__all__ = ["plan"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", re.ASCII)


def plan(situation: Situation, remedy: "Remediation") -> Remedy:
    """Which package manager and flavour it is, what is installed already, and the commands to run over there."""
    root = situation.root
    running = situation.facts.host.kernel_release
    release = running or host.boots_next(root).release
    if release is None:
        return remedy.impossible("This tree shows neither a running kernel nor an installed one.")
    found, said = ready(situation, running) if running else (None, ())
    if found is not None:
        why = f"{found.release} is installed there and was not booted yet. Its code was read: {found.judged.why}."
        after = "" if found.next else f" {not_next(found.boots, found.release)}"
        first = () if found.next else instead(found.boots, found.release)
        commands = tuple(_there(situation, command) for command in (*first, "sudo systemctl reboot"))
        return Remedy(remedy.name, "possible", why + after, commands, verified=True, cost="a reboot", details=said)
    manager = manager_of(root, release)
    if manager is None:
        return remedy.impossible("No package manager that we know (apt, dnf, zypper) left its database in this tree.")
    package = owner_in(root, release) if manager == "apt" else None
    kind = flavour(release)
    about = f"Kernel {release}" + (f", package {package}" if package else "") + (f", flavour {kind}" if kind else "")
    return remedy.impossible(
        f"What {manager} offers cannot be asked from here: this is a tree, and asking would run what its configuration "
        "names. The commands are for that machine; what they download can be judged here.",
        commands=_commands(situation, manager, package, kind, None if running else str(root.path)),
        details=(f"{about}: its package manager is {manager}.", *said),
    )


def _there(situation: Situation, command: str) -> str:
    """The command on the machine that the tree is of: pasted as it is, it would change the one that we run on."""
    name = situation.facts.host.name
    return f"ssh -t {name if name and NAME.fullmatch(name) else 'HOST'} {shlex.quote(command)}"


def _commands(
    situation: Situation, manager: str, package: str | None, kind: str | None, mounted: str | None
) -> tuple[str, ...]:
    """To download and install over there, and to judge here; in a mounted image through chroot(8)."""
    if manager == "apt":
        name = shlex.quote(f"linux-image-{kind}" if kind else package or "linux-image-amd64")
        all_of_it = f"apt-cache depends --recurse --important {name} | grep -E '^linux-(image|modules)-[0-9]'"
        refresh, download = "apt-get update", f"apt-get download $({all_of_it})"
        install = f"apt-get install {name}"
    elif manager == "dnf":
        refresh, download = "dnf makecache", "dnf download kernel-core kernel-modules-core"
        install = "dnf install kernel"
    else:
        name = f"kernel-{kind}" if kind else "kernel-default"
        refresh, download = "zypper refresh", f"zypper --pkg-cache-dir . download {shlex.quote(name)}"
        install = f"zypper install {shlex.quote(name)}"
    if mounted is None:
        fetch = _there(situation, f"mkdir -p kernel && cd kernel && {download}")
        name = fetch.split()[2]
        return (
            _there(situation, f"sudo {refresh}"),
            fetch,
            f"scp -r {name}:kernel . && ejectable kernel kernel",
            f"{_there(situation, f'sudo {install}')}  # if it is fixed",
        )
    inside = f"sudo chroot {shlex.quote(mounted)}"
    fetch = f"mkdir -p /root/kernel && cd /root/kernel && {refresh} && {download}"
    return (
        f"{inside} sh -c {shlex.quote(fetch)}",
        f"ejectable kernel {shlex.quote(f'{mounted}/root/kernel')}",
        f"{inside} {install}  # if it is fixed",
    )
