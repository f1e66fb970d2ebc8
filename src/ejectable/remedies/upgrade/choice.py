# SPDX-License-Identifier: GPL-2.0-or-later
"""Which package manager this kernel came from: its own database says so, not the name of the distribution."""

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies.commands import which
from ejectable.remedies.upgrade import rpm
from ejectable.remedies.upgrade.apt import Apt, owner_in
from ejectable.remedies.upgrade.backend import Backend
from ejectable.remedies.upgrade.dnf import Dnf
from ejectable.remedies.upgrade.zypper import Zypper

__all__ = ["manager_of", "select"]


def manager_of(root: host.Root, release: str) -> str | None:
    """`apt`, `dnf` or `zypper`, from the files below a root; nothing is run. `None` where there is neither."""
    if owner_in(root, release):
        return "apt"
    debian = root.file("/var/lib/dpkg/status") is not None
    # rpm is a tool on Debian as well, and leaves an empty database there.
    if rpm.has_database(root) and not (debian and rpm.system_is(root, "debian|ubuntu|proxmox")):
        return "zypper" if rpm.system_is(root, "suse|opensuse|sles|sled") else "dnf"
    return "apt" if debian else None


def select(root: host.Root, release: str, *, offline: bool) -> Backend:
    """The package manager to ask; raises `Missing` where there is none that we know."""
    name = manager_of(root, release)
    if name == "apt" and which("apt-get") and which("dpkg-query"):
        return Apt(root, offline=offline)
    if name in ("dnf", "zypper") and which("rpm"):
        if which("zypper") and (name == "zypper" or not (which("dnf") or which("yum"))):
            return Zypper(root, offline=offline)
        if which("dnf") or which("yum"):
            return Dnf(root, offline=offline)
    raise Missing(
        "No package manager was found here that offers kernels: neither apt, nor dnf or yum, nor zypper.",
        hint="`ejectable kernel PACKAGE` judges a package that was downloaded by other means.",
    )
