# SPDX-License-Identifier: GPL-2.0-or-later
"""dnf, also where it is called yum: Fedora, Red Hat and what descends from them.

dnf's own metadata cache is asked first. Where it is old or absent, dnf fetches newer metadata into a folder of this
user's. Kernels are "installonly" packages: a newer one comes beside the one in use (dnf.conf(5), installonlypkgs).
"""

import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from ejectable import host
from ejectable.errors import Missing
from ejectable.intake import Directory
from ejectable.remedies.commands import paste, run, which
from ejectable.remedies.upgrade import rpm
from ejectable.remedies.upgrade.backend import Backend, Effect, Offer, Owner, Package, number, plain, telling
from ejectable.remedies.upgrade.flavour import newer
from ejectable.remedies.upgrade.folders import cache

__all__ = ["Dnf"]

QUERY_S = 120.0
DOWNLOAD_S = 3600.0
FRESH_S = 172800  # metadata_expire of dnf.conf(5): 48 hours
FIELDS = ("name", "epoch", "version", "release", "arch", "downloadsize", "installsize", "buildtime", "chksum")
UNLOCKED = ("--disableplugin=versionlock", "--disableexcludes=all")
LET_GO = ("dnf versionlock list; grep -n exclude /etc/dnf/dnf.conf /etc/yum.repos.d/*",)
SECTION = re.compile(r"(Installing|Upgrading|Downgrading|Reinstalling|Removing|Obsoleting)\b.*:$")
# Never a removal in passing: not of the oldest kernel (installonly_limit), not of what is no longer needed.
KEEPING = ("--setopt=installonly_limit=0", "--setopt=clean_requirements_on_remove=False", "--setopt=keepcache=True")


class Dnf(Backend):
    """See the module's text."""

    name: ClassVar[Literal["apt", "dnf", "zypper"]] = "dnf"

    def __init__(self, root: host.Root, *, offline: bool) -> None:
        super().__init__(root, offline=offline)
        self._program = next((name for name in ("dnf", "yum") if which(name)), "dnf")

    def owner(self, release: str) -> Owner | None:
        """As `Backend.owner`."""
        return rpm.owner(release)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Which metadata dnf uses."""
        found = [
            self.root.stat(f"/var/cache/dnf/{name}/repodata/repomd.xml")
            for name in self.root.list("/var/cache/dnf") or ()
        ]
        times = [about.st_mtime for about in found if about is not None and stat.S_ISREG(about.st_mode)]
        age = time.time() - max(times, default=0.0)
        if self.offline:
            if age > FRESH_S:
                self.stale.append(
                    "dnf's metadata is old or absent, and --offline forbids fetching it: `sudo dnf makecache` does."
                )
            return ("--cacheonly",)
        top = self.root.stat("/")
        of_root = os.geteuid() == 0 and top is not None and top.st_uid == 0
        return ("--cacheonly",) if age < FRESH_S and of_root else self._own()

    def _own(self) -> tuple[str, ...]:
        return (f"--setopt=cachedir={cache('dnf')}",)

    def offer(self, owner: Owner) -> Offer:
        """As `Backend.offer`: the newest of the package that the kernel in use came in."""
        found = self._newest(owner)
        image = next((package for package in found if package.name == owner.package), None)
        held: tuple[str, ...] = ()
        if image is None or not newer(image.version, owner.version):
            hidden = self._newest(owner, *UNLOCKED)
            other = next((package for package in hidden if package.name == owner.package), None)
            if other is not None and newer(other.version, owner.version):
                found, image = hidden, other
                held = (f"versionlock or an exclude keeps dnf from {other.label}",)
        if image is None:
            raise Missing(
                f"No repository offers {owner.package}.", hint="Run `sudo dnf makecache`, and look at `dnf repolist`."
            )
        same = {package.name: package for package in found if package.version == image.version}
        base = owner.package.removesuffix("-core")
        parts = tuple(
            same[base + part]
            for part in ("-modules-core", "-modules")
            if base + part in same and base + part != owner.package
        )
        return Offer(
            image,
            None,
            parts,
            tuple(same[name] for name in owner.siblings if name in same),
            held=held,
            release_commands=LET_GO if held else (),
            current=not newer(image.version, owner.version),
        )

    def _newest(self, owner: Owner, *options: str) -> list[Package]:
        base = owner.package.removesuffix("-core")
        names = dict.fromkeys([owner.package, *owner.siblings, *(base + part for part in rpm.PARTS)])
        form = "|".join(f"%{{{field}}}" for field in FIELDS) + "\n"
        argv = [self._program, "-q", *self.options, *options, "repoquery", "--available", "--latest-limit=1"]
        done = run([*argv, f"--queryformat={form}", *names], timeout_s=QUERY_S)
        if not done.ok:
            raise Missing(f"dnf could not be asked: {done.last}", hint="`dnf repolist` says more.")
        if match := re.search(r"^.*(?:Ignoring repositories|Failed to download metadata).*$", done.err, re.MULTILINE):
            self.stale.append(f"Not every repository could be asked: {match[0].strip()[:200]}")
        found = [_package(line.split("|", len(FIELDS) - 1)) for line in done.out.splitlines() if line.count("|") >= 8]
        machine = self.root.text("/proc/sys/kernel/arch", 64)
        return [one for one in found if plain(one.name, one.version, one.arch) and machine in (None, one.arch)]

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """As `Backend.download`: with dnf's plugin of that name, which needs no root."""
        words = [_word(package) for package in packages]
        argv = [self._program, "-q", *self.options, "download", f"--destdir={folder}", *words]
        done = run(argv, timeout_s=DOWNLOAD_S)
        if not done.ok:
            name = packages[0].name
            if "No such command" in done.err + done.out:
                raise Missing(
                    f"{name} could not be downloaded: dnf has no `download` here.",
                    hint="sudo dnf install dnf-plugins-core",
                )
            raise Missing(f"{name} could not be downloaded: {telling(done)}", hint="Is the repository within reach?")
        return [rpm.rpm_file(folder, package) for package in packages]

    def effect(self, offer: Offer, folder: Path) -> Effect:
        """As `Backend.effect`: what dnf says before it would ask."""
        del folder
        argv = [self._program, *self.options, *KEEPING, "--assumeno", "install", *map(_word, offer.wanted)]
        done = run(argv, timeout_s=QUERY_S)
        if "Transaction Summary" not in done.out:
            raise Missing(f"dnf would not install it: {done.last}", hint=f"`{paste(argv)}` says more.")
        return _effect(done.out)

    def fetch(self, offer: Offer, folder: Path) -> list[Path]:
        """As `Backend.fetch`: into dnf's cache of our own, from which it then installs."""
        self.options = self._own()
        argv = [self._program, "-q", "-y", *self.options, *KEEPING, "install", "--downloadonly"]
        done = run([*argv, *map(_word, offer.wanted)], timeout_s=DOWNLOAD_S)
        if not done.ok:
            raise Missing(
                f"{offer.image.label} could not be downloaded: {telling(done)}",
                hint="Nothing was changed. Is the repository within reach, and is there room?",
            )
        found = []
        for package in (offer.image, *offer.parts):
            try:
                found.append(rpm.rpm_file(cache("dnf"), package))
            except Missing:  # dnf leaves alone what lies in a local repository, and installs it from there
                found += self.download([package], folder)
        return found

    def install(self, offer: Offer, folder: Path) -> list[str]:
        """As `Backend.install`."""
        del folder
        return [self._program, "-y", *self.options, "--cacheonly", *KEEPING, "install", *map(_word, offer.wanted)]

    def tidy(self) -> None:
        """As `Backend.tidy`: the packages go, the metadata stays for the next time."""
        with Directory.open(cache("dnf")) as top:
            for repository in top.list():
                with suppress(OSError), top.enter(repository) as inner, inner.enter("packages") as packages:
                    for name in packages.list():
                        if name.endswith(".rpm"):
                            packages.remove(name)

    def commands(self, offer: Offer) -> tuple[str, ...]:
        """As `Backend.commands`."""
        return (paste(["sudo", self._program, "install", "--refresh", *map(_word, offer.wanted)]),)

    def locks(self) -> tuple[str, ...]:
        """As `Backend.locks`."""
        return rpm.LOCKS


def _package(fields: Sequence[str]) -> Package:
    name, epoch, version, release, arch, size, installed_size, built, digest = (field.strip() for field in fields)
    return Package(
        name,
        f"{epoch}:{version}-{release}",
        arch,
        digest=f"{digest} {built}",
        size=number(size),
        installed_size=number(installed_size),
    )


def _word(package: Package) -> str:
    """As dnf takes it: NAME-EPOCH:VERSION-RELEASE.ARCH."""
    return f"{package.name}-{package.version.removeprefix('0:')}.{package.arch}"


def _effect(text: str) -> Effect:
    """Read dnf's table. A row begins with one space; what does not fit its columns goes on in the next line."""
    rows: list[tuple[str, list[str]]] = []
    section = ""
    for line in text.splitlines():
        if match := SECTION.match(line):
            section = match[1]
        elif line.startswith("Transaction Summary"):
            break
        elif section and line.startswith(" ") and line.split()[:1] == ["replacing"]:
            rows.append(("Removing", line.split()[1:]))
        elif section and line.startswith(" ") and not line.startswith("  "):
            rows.append((section, line.split()))
        elif section and line.startswith("  ") and rows:
            rows[-1][1].extend(line.split())
    named = [(kind, f"{row[0]}-{row[2]}.{row[1]}" if len(row) > 2 else row[0]) for kind, row in rows if row]
    return Effect(
        tuple(name for kind, name in named if kind == "Installing"),
        tuple(name for kind, name in named if kind in ("Upgrading", "Downgrading", "Reinstalling")),
        tuple(name for kind, name in named if kind in ("Removing", "Obsoleting")),
    )
