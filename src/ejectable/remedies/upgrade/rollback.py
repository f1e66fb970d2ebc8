# SPDX-License-Identifier: GPL-2.0-or-later
"""Remove what an upgrade installed: exactly the packages that are named, and never the kernel that runs.

It must also work after the upgrade was killed: then the package manager may still be at work (it is waited for), or may
have been stopped half-way. What was not installed at all is no error. No package manager is ever killed: what that
leaves half configured nobody can remove.
"""

import re
import time
from collections.abc import Sequence
from contextlib import suppress

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies.commands import run, which
from ejectable.remedies.upgrade import rpm
from ejectable.remedies.upgrade.apt import Apt, owner_in
from ejectable.remedies.upgrade.precautions import holder

__all__ = ["refusal", "roll_back"]

WAIT_S = 300.0  # for a package manager that is still at work
RELEASE = re.compile(r"\d[\w.~+-]*", re.ASCII)
REMOVE_S = 3600.0


def refusal(root: host.Root, manager: str, packages: Sequence[str]) -> str | None:
    """Why these packages must stay: the kernel that runs is among them."""
    release = root.text("/proc/sys/kernel/osrelease", 256)
    if not release:
        return None
    if manager == "apt":
        mine = owner_in(root, release)
        own = [name for name in packages if name == mine or name.endswith(f"-{release}")]
    else:
        owner = rpm.owner(release)
        version = owner.version.removeprefix("0:") if owner else None
        own = [name for name in packages if owner and version and owner.package in name and version in name]
    if own:
        return f"{own[0]} is the kernel that runs ({release}): boot another one first."
    return None


def roll_back(
    root: host.Root, manager: str, packages: Sequence[str], before: Sequence[str], leftovers: str = ""
) -> None:
    """Remove `packages` and reinstall `before`; raises `Missing` where that fails."""
    if why := refusal(root, manager, packages):
        raise Missing(why)
    locks = Apt.paths if manager == "apt" else rpm.LOCKS
    give_up = time.monotonic() + WAIT_S
    while found := holder(root, locks):
        if time.monotonic() > give_up:
            raise Missing(f"The package manager is busy: {found}.")
        time.sleep(0.5)
    if before:
        _checked(["apt-get", "-q", "-y", "--allow-downgrades", "--no-remove", "install", *before])
    if here := [name for name in packages if _is_installed(manager, name)]:
        _remove(manager, here)
    if left := [name for name in here if _is_installed(manager, name)]:
        raise Missing(f"Still installed: {', '.join(left)}.")
    if leftovers and not _is_owned(manager, f"/lib/modules/{leftovers}"):
        _sweep(root, leftovers)


def _remove(manager: str, packages: Sequence[str]) -> None:
    if manager == "apt":
        # dpkg itself, not apt: it works from every state in which an installation may have been left.
        _checked(["dpkg", "--force-remove-reinstreq", "--purge", *packages])
    elif manager == "dnf":
        dnf = "dnf" if which("dnf") else "yum"
        _checked([dnf, "-y", "--setopt=clean_requirements_on_remove=False", "remove", *packages])
    else:
        _checked(["zypper", "--non-interactive", "--no-refresh", "remove", "--no-clean-deps", *packages])


def _sweep(root: host.Root, release: str) -> None:
    """Remove the files of a release that belong to no package: those that were unpacked when everything stopped."""
    if not RELEASE.fullmatch(release) or release == root.text("/proc/sys/kernel/osrelease", 256):
        return
    left = re.compile(rf"[A-Za-z.]+-{re.escape(release)}(?:\.img)?(?:\.dpkg-\w+|\.new)?")
    with suppress(OSError), root.directory("/boot") as boot:
        for name in filter(left.fullmatch, boot.list()):
            boot.remove(name)
    with suppress(OSError), root.directory("/lib/modules") as modules:
        modules.remove_folder(release, filled=True)


def _is_installed(manager: str, name: str) -> bool:
    if manager == "apt":
        done = run(["dpkg-query", "--show", "--showformat=${db:Status-Status}", name], timeout_s=60)
        return done.ok and done.out.strip() != "not-installed"
    # zypper has name=version, rpm name-version.
    return run(["rpm", "-q", name.replace("=", "-", 1)], timeout_s=60).ok


def _is_owned(manager: str, folder: str) -> bool:
    """Whether a package has it still: headers that somebody installed since."""
    ask = ["dpkg-query", "--search"] if manager == "apt" else ["rpm", "-qf"]
    return any(run([*ask, f"{base}{folder}"], timeout_s=60).ok for base in ("", "/usr"))


def _checked(argv: list[str]) -> None:
    done = run(argv, timeout_s=REMOVE_S, unbroken=True)
    if not done.ok:
        raise Missing(f"`{argv[0]}` failed: {done.last}")
