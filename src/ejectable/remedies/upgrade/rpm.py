# SPDX-License-Identifier: GPL-2.0-or-later
"""What dnf and zypper have in common: the database of rpm, and how kernels are split into packages."""

import re
from pathlib import Path

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies.commands import run
from ejectable.remedies.upgrade.backend import Owner, Package
from ejectable.remedies.upgrade.flavour import flavour

__all__ = ["LOCKS", "PARTS", "has_database", "installed", "owner", "rpm_file", "system_is"]

QUERY_S = 60.0
FORMAT = r"%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\n"
# Fedora and Red Hat: kernel (a metapackage), kernel-core, kernel-modules-core, kernel-modules ...; with another word in
# front of them for other flavours (kernel-rt, kernel-64k). SUSE: kernel-default and the like, whole.
PARTS = ("", "-core", "-modules-core", "-modules", "-modules-extra", "-devel", "-extra", "-optional")
DATABASES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
# fcntl locks (rpm, libdnf) and files with the number of a process (dnf, libzypp).
LOCKS = (
    *(f"{folder}/.rpm.lock" for folder in DATABASES),
    "/run/zypp.pid",
    "/var/lib/dnf/rpmdb_lock.pid",
    "/var/cache/dnf/download_lock.pid",
)


def has_database(root: host.Root) -> bool:
    """Whether packages of rpm's are installed there."""
    return any(
        root.file(f"{folder}/{name}") for folder in DATABASES for name in ("rpmdb.sqlite", "Packages", "Packages.db")
    )


def system_is(root: host.Root, names: str) -> bool:
    """Whether os-release(5) names one of these systems (`debian|ubuntu`), or one that is like it."""
    text = root.text("/etc/os-release") or root.text("/usr/lib/os-release") or ""
    return bool(re.search(rf"^ID(?:_LIKE)?=.*\b(?:{names})\b", text, re.MULTILINE))


def owner(release: str) -> Owner | None:
    """The package that brought the image of a release, and what is installed beside it."""
    if "/" in release:
        return None
    modules = [
        f"{base}/{release}/{name}" for base in ("/lib/modules", "/usr/lib/modules") for name in ("vmlinuz", "Image")
    ]
    paths = [*modules, f"/boot/vmlinuz-{release}", f"/boot/Image-{release}"]
    # What is not there is said on the standard error, and passed over.
    found = _rows(run(["rpm", "-qf", "--queryformat", FORMAT, *paths], timeout_s=QUERY_S).out)
    if not found:
        return None
    package = found[0]
    base = package.name.removesuffix("-core")
    beside = installed([base + part for part in PARTS])
    siblings = [each.name for each in beside if (each.version, each.arch) == (package.version, package.arch)]
    return Owner(
        package.name,
        package.version,
        release,
        flavour(release) or base.removeprefix("kernel").strip("-") or None,
        siblings=tuple(dict.fromkeys([package.name, *siblings])),
    )


def installed(names: list[str]) -> list[Package]:
    """Those that are installed, in every version."""
    return _rows(run(["rpm", "-q", "--queryformat", FORMAT, *names], timeout_s=QUERY_S).out)


def rpm_file(folder: Path, package: Package) -> Path:
    """The file of a package somewhere below a folder; raises `Missing`. rpm's naming has no epoch in it."""
    name = f"{package.name}-{package.version.partition(':')[2] or package.version}.{package.arch}.rpm"
    found = sorted(folder.rglob(name))
    if not found:
        raise Missing(f"{package.label} was downloaded, but {name} is not there.")
    return found[0]


def _rows(text: str) -> list[Package]:
    rows = [line.split("\t") for line in text.splitlines()]
    return [Package(row[0], row[1], row[2]) for row in rows if len(row) == 3]
