# SPDX-License-Identifier: GPL-2.0-or-later
"""The flavour of a kernel by its release: what follows the numbers, and stays the same from one upgrade to the next."""

import re

from ejectable.host.installed import natural

__all__ = ["concrete", "flavour", "newer"]

# Upstream version, ABI and whatever a distribution mixes in, as far as it begins with a digit; then the flavour:
# 6.1.0-50-cloud-amd64, 6.12.117+deb12-cloud-amd64, 6.1.0-0.deb11.21-amd64, 6.8.0-1009-aws, 6.8.4-2-pve,
# 6.4.0-150600.23.25-default. Fedora's and Red Hat's say nothing there (6.8.5-301.fc40.x86_64): their packages do.
RELEASE = re.compile(r"\d+(?:\.\d+)+(?:[~+][\w.~+]*)?(?:-rc\d+)?(?:-\d[\w.~+]*)*-([a-z][\w.+-]*)", re.ASCII)
# Packages that hold one kernel each, with its release in the name: Debian, Ubuntu (signed and not), Proxmox. Two
# numbers alone are a series (linux-image-6.12-cloud-amd64, proxmox-kernel-6.8), which is a metapackage.
CONCRETE = re.compile(
    r"(?:linux-image-(?:unsigned-)?|proxmox-kernel-|pve-kernel-)(\d+\.\d+(?:\.\d|-rc\d)[\w.~+-]*?)(?:-(?:un)?signed)?",
    re.ASCII,
)


def flavour(release: str) -> str | None:
    """`cloud-amd64` of 6.1.0-50-cloud-amd64, `aws` of 6.8.0-1009-aws; `None` where a release does not tell."""
    match = RELEASE.fullmatch(release)
    return match[1] if match else None


def concrete(package: str) -> str | None:
    """The release of the kernel that is in a Debian package, by its name; `None` for metapackages and the others."""
    match = CONCRETE.fullmatch(package)
    return match[1] if match and flavour(match[1]) else None


def newer(release: str, than: str) -> bool:
    """Whether a release comes after another one, as far as names tell."""
    return natural(release) > natural(than)
