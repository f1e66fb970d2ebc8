# SPDX-License-Identifier: GPL-2.0-or-later
"""apt and dpkg: Debian, Ubuntu, Proxmox and what descends from them.

What is asked, is asked of apt itself (apt-cache, apt-get), so that its sources, pins and signatures decide. The lists
of the system are never changed: where they are old, newer ones are fetched into a folder of this user's.
"""

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from ejectable import host
from ejectable.errors import BadInput, Missing
from ejectable.host.installed import natural
from ejectable.intake import Directory
from ejectable.remedies.commands import paste, run
from ejectable.remedies.upgrade import apt_lists
from ejectable.remedies.upgrade.backend import Backend, Effect, Offer, Owner, Package, telling
from ejectable.remedies.upgrade.flavour import concrete, flavour, newer

__all__ = ["Apt", "owner_in"]

INFO = "/var/lib/dpkg/info"
QUERY_S = 60.0
DOWNLOAD_S = 3600.0
FAMILY = ("linux-*", "proxmox-*", "pve-kernel-*")


def owner_in(root: host.Root, release: str) -> str | None:
    """The package that brought the image of a release, by dpkg's own lists of files: works on a tree as well."""
    wanted = {f"/boot/vmlinuz-{release}", f"/boot/vmlinux-{release}"}
    for name in root.list(INFO) or ():
        if release in name and name.endswith(".list"):
            files = (root.read(f"{INFO}/{name}", 8 << 20) or b"").decode("utf-8", "replace").splitlines()
            if not wanted.isdisjoint(files):
                return name.removesuffix(".list").partition(":")[0]
    return None


class Apt(Backend):
    """See the module's text."""

    name: ClassVar[Literal["apt", "dnf", "zypper"]] = "apt"
    paths: ClassVar[tuple[str, ...]] = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")

    def __init__(self, root: host.Root, *, offline: bool) -> None:
        super().__init__(root, offline=offline)
        self._lists = apt_lists.Lists(root, offline=offline, notes=self.notes, stale=self.stale)
        self._installed = _installed()

    def owner(self, release: str) -> Owner | None:
        """As `Backend.owner`."""
        package = owner_in(self.root, release) or _searched(release)
        if package is not None and package not in self._installed:
            self._installed |= _installed(package)
        if package is None or package not in self._installed:
            return None
        kind = flavour(release)
        followed = tuple(
            name
            for name, known in self._installed.items()
            if any(kind and flavour(to) == kind for to in map(concrete, _names(known.depends)) if to)
        )
        siblings = tuple(
            name for name in self._installed if name == package or name.endswith((f"-{release}", f"-{release}-signed"))
        )
        return Owner(package, self._installed[package].version, release, kind, followed, siblings)

    def offer(self, owner: Owner) -> Offer:
        """As `Backend.offer`: what the metapackages lead to, else the newest of this flavour."""
        metas = owner.followed or tuple(f"linux-image-{owner.flavour}" for _ in range(bool(owner.flavour)))
        if concrete(owner.package) is None:
            # Its name has no release in it (raspberrypi-kernel): a newer version replaces it.
            return self._offered(owner.package, None, owner, {})
        found = self._lists.ask(metas)
        leads = {
            name: via
            for via, known in found.items()
            for name in _names(known.candidate.depends if known.candidate else "")
            if (to := concrete(name)) and flavour(to) == owner.flavour
        }
        if not owner.followed:
            # Nobody follows it: what the distribution would lead to counts if it is no step back.
            leads = {name: via for name, via in leads.items() if not newer(owner.release, concrete(name) or "")}
        if not leads:
            leads = dict.fromkeys(self._lists.names(lambda name: flavour(concrete(name) or "") == owner.flavour), "")
        if not leads:
            raise Missing(
                f"The package lists have no kernel of the flavour {owner.flavour or '(none)'} that {owner.release} is.",
                hint="Run `sudo apt-get update`, and look at the sources of apt.",
            )
        # Of the same kernel there may be a signed and an unsigned package: the one that is like the one in use.
        like = owner.package.startswith("linux-image-unsigned-")
        newest = max(leads, key=lambda name: (natural(concrete(name) or ""), ("unsigned" in name) == like))
        return self._offered(newest, leads[newest] or None, owner, found)

    def _offered(self, name: str, via: str | None, owner: Owner, found: Mapping[str, apt_lists.Known]) -> Offer:
        release = concrete(name)
        others = [sibling for sibling in owner.siblings if release and sibling != owner.package]
        siblings = [sibling.replace(owner.release, release or "") for sibling in others]
        known = self._lists.ask((name, *siblings))
        one = known.get(name)
        if one is None or one.candidate is None:
            raise Missing(f"apt does not offer {name}.", hint=f"`apt-cache policy {name}` says why.")
        depends = [each for each in _names(one.candidate.depends) if release and each.endswith(release)]
        more = self._lists.ask(tuple(each for each in depends if each not in known))
        known |= more
        parts = _candidates(known, depends)
        in_place = name == owner.package
        image = one.candidate.package
        current = (in_place and image.version == owner.version) or newer(owner.release, release or owner.release)
        names = tuple(dict.fromkeys((*owner.followed, *((via,) if via else ()), owner.package, image.name)))
        if current:
            self._note_pins({**found, **known}, names)
        held = [each for each in names if each in self._installed and self._installed[each].held]
        return Offer(
            image,
            release,
            parts,
            tuple(dict.fromkeys((image, *parts, *_candidates(known, siblings)))),
            via,
            tuple(f"{each} is held (apt-mark hold)" for each in held),
            (paste(["sudo", "apt-mark", "unhold", *held]),) if held else (),
            in_place=in_place,
            current=current,
        )

    def _note_pins(self, known: Mapping[str, apt_lists.Known], names: Sequence[str]) -> None:
        """Say where a newer version is there that apt would not take: of a suite with a low priority, or pinned."""
        for name in names:
            if name in known and known[name].pinned:
                self.notes.append(
                    f"{name} {known[name].pinned} is there, and apt would take {known[name].taken}: "
                    f"`apt-cache policy {name}` says why (apt_preferences(5))."
                )

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """As `Backend.download`; works without root."""
        words = [f"{package.name}:{package.arch}={package.version}" for package in packages]
        # Root's apt downloads as _apt, so it gets a folder of its own; what is there in the end is moved out of reach.
        with Directory.open(folder) as here, _lent(here, "incoming") as aside:
            argv = ["apt-get", *self._lists.options, "-qq", "download", *words]
            done = run(argv, timeout_s=DOWNLOAD_S, cwd=aside.name)
            if not done.ok:
                raise Missing(
                    f"{packages[0].name} could not be downloaded: {telling(done)}", hint="Is the archive within reach?"
                )
            for package in packages:
                _taken(aside, here, package)
        return [_path(folder, package) for package in packages]

    def effect(self, offer: Offer, folder: Path) -> Effect:
        """As `Backend.effect`: what `apt-get --simulate` says it would do."""
        argv = ["apt-get", *self._lists.options, *_where(folder), "--simulate", "install", *_words(offer)]
        done = run(argv, timeout_s=QUERY_S)
        if not done.ok:
            raise Missing(f"apt would not install it: {done.last}", hint=f"`{paste(argv)}` says more.")
        new: list[str] = []
        changed: list[str] = []
        removed: list[str] = []
        for line in done.out.splitlines():
            # "Inst NAME [OLD] (NEW ORIGIN [ARCH])", "Remv NAME [OLD]" (apt-get(8), --simulate)
            words = line.split()
            if words[:1] == ["Inst"] and len(words) > 2:
                (changed if words[2].startswith("[") else new).append(words[1])
            elif words[:1] in (["Remv"], ["Purg"]) and len(words) > 1:
                removed.append(words[1])
        return Effect(tuple(new), tuple(changed), tuple(removed))

    def fetch(self, offer: Offer, folder: Path) -> list[Path]:
        """As `Backend.fetch`: into an archive folder of our own, whose files apt then installs from."""
        with Directory.open(folder) as here:
            _lent(here, "partial").close()
        argv = ["apt-get", *self._lists.options, *_where(folder), "-qq", "-y", "--download-only", "--no-remove"]
        done = run([*argv, "install", *_words(offer)], timeout_s=DOWNLOAD_S)
        if not done.ok:
            raise Missing(
                f"{offer.image.label} could not be downloaded: {telling(done)}",
                hint="Nothing was changed. Is the archive within reach, and is there room?",
            )
        packages = (offer.image, *offer.parts)
        # apt leaves alone what lies in a local repository (`file:`), and installs it from there.
        absent = [package for package in packages if not _path(folder, package).is_file()]
        if absent:
            self.download(absent, folder)
        return [_file(folder, package) for package in packages]

    def install(self, offer: Offer, folder: Path) -> list[str]:
        """As `Backend.install`."""
        return [
            "apt-get",
            *self._lists.options,
            *_where(folder),
            *("-q", "-y", "--no-remove"),
            *("-o", "APT::Get::AutomaticRemove=false"),
            *("-o", "Dpkg::Options::=--force-confold"),
            *("-o", "Dpkg::Use-Pty=false"),
            "install",
            *_words(offer),
        ]

    def before(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """As `Backend.before`: the versions that are installed, where apt could fetch every one of them again."""
        words = [f"{name}={self._installed[name].version}" for name in names if name in self._installed]
        known = self._lists.records(words)
        there = all(any(f"{n}={v}" == word and one.package.digest for (n, v), one in known.items()) for word in words)
        return tuple(words) if there and len(words) == len(names) else None

    def commands(self, offer: Offer) -> tuple[str, ...]:
        """As `Backend.commands`."""
        return ("sudo apt-get update", paste(["sudo", "apt-get", "install", *_words(offer)]))

    def locks(self) -> tuple[str, ...]:
        """As `Backend.locks`."""
        return self.paths


class _Installed(msgspec.Struct, frozen=True):
    version: str
    depends: str
    held: bool


def _searched(release: str) -> str | None:
    """The package of an image by asking dpkg, where its name has no release in it."""
    done = run(["dpkg-query", "--search", f"/boot/vmlinuz-{release}"], timeout_s=QUERY_S)
    match = re.match(r"([a-z0-9][a-z0-9.+-]*)(?::\w+)?: /", done.out)
    return match[1] if match else None


def _installed(*names: str) -> dict[str, _Installed]:
    """The packages of the kernel's family that are installed, whole or not."""
    template = r"${Package}\t${Version}\t${db:Status-Abbrev}\t${Depends}\n"
    done = run(["dpkg-query", "--show", f"--showformat={template}", *(names or FAMILY)], timeout_s=QUERY_S)
    found = {}
    for line in done.out.splitlines():
        name, version, status, depends = (*line.split("\t"), "", "", "")[:4]
        if status[1:2] not in ("n", "c", ""):
            found[name] = _Installed(version, depends, held=status.startswith("h"))
    return found


def _candidates(known: Mapping[str, apt_lists.Known], names: Sequence[str]) -> tuple[Package, ...]:
    found = [known[name].candidate for name in names if name in known]
    return tuple(one.package for one in found if one is not None)


def _names(depends: str) -> list[str]:
    """The names in a Depends field; of alternatives, the first."""
    return [each.partition("|")[0].split("(")[0].split("[")[0].partition(":")[0].strip() for each in depends.split(",")]


def _words(offer: Offer) -> list[str]:
    return [f"{package.name}={package.version}" for package in offer.wanted]


def _where(folder: Path) -> list[str]:
    """From our own folder of packages; and nothing that is merely recommended comes along."""
    return ["-o", f"Dir::Cache::Archives={folder}", "-o", "APT::Install-Recommends=false"]


def _path(folder: Path, package: Package) -> Path:
    return folder / _file_name(package)


def _file_name(package: Package) -> str:
    """As apt names what it downloads: the colon of an epoch is quoted (apt-pkg/acquire-item.cc, pkgAcqArchive)."""
    return f"{package.name}_{package.version.replace(':', '%3a')}_{package.arch}.deb"


def _lent(folder: Directory, name: str) -> Directory:
    """A folder in it that apt's own unprivileged user can write to (apt.conf(5), APT::Sandbox::User)."""
    inner = folder.enter(name, make=True, mode=0o700)
    if os.geteuid() == 0:
        with suppress(KeyError, OSError):  # where there is no such user, apt goes on as root
            os.fchown(inner.descriptor, pwd.getpwnam("_apt").pw_uid, 0)
    return inner


def _taken(aside: Directory, here: Directory, package: Package) -> None:
    """Move a package out of apt's reach, and make it this user's. Raises `Missing` or `BadInput` for anything else."""
    name = _file_name(package)
    if aside.lstat(name) is None:
        raise _absent(package)
    aside.rename(name, name, into=here)
    with here.open_file(name) as file:
        if os.fstat(file.fileno()).st_nlink != 1:
            raise BadInput("apt left a file with several names", path=name)
        os.fchown(file.fileno(), os.geteuid(), os.getegid())


def _file(folder: Path, package: Package) -> Path:
    path = _path(folder, package)
    if not path.is_file():
        raise _absent(package)
    return path


def _absent(package: Package) -> Missing:
    return Missing(f"apt said that it downloaded {package.label}, but {_file_name(package)} is not there.")
