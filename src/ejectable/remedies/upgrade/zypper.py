# SPDX-License-Identifier: GPL-2.0-or-later
"""zypper: SUSE Linux Enterprise and openSUSE.

Kernels are "multiversion" packages there (zypp.conf): a newer one comes beside the one in use. zypper answers in XML
where it is asked to (--xmlout), and its metadata is read as it lies in the cache, or refreshed in a folder of our own.
"""

import fnmatch
import hashlib
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ejectable.errors import Missing
from ejectable.host.installed import natural
from ejectable.remedies.commands import paste, run
from ejectable.remedies.upgrade import rpm
from ejectable.remedies.upgrade.backend import Backend, Effect, Offer, Owner, Package, plain, telling
from ejectable.remedies.upgrade.flavour import newer
from ejectable.remedies.upgrade.folders import cache

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Zypper"]

QUERY_S = 120.0
DOWNLOAD_S = 3600.0
FRESH_S = 86400
RAW = "/var/cache/zypp/raw"


class Zypper(Backend):
    """See the module's text."""

    name: ClassVar[Literal["apt", "dnf", "zypper"]] = "zypper"

    def owner(self, release: str) -> Owner | None:
        """As `Backend.owner`."""
        return rpm.owner(release)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Which metadata zypper uses."""
        age = time.time() - max((path.stat().st_mtime for path in self._metadata(self.root.outside(RAW))), default=0.0)
        if age < FRESH_S:
            return ()
        if self.offline:
            self.stale.append(
                "zypper's metadata is old or absent, and --offline forbids fetching it: `sudo zypper refresh` does."
            )
            return ()
        ours = ("--cache-dir", str(cache("zypp")))
        done = run(["zypper", *ours, "--non-interactive", "--quiet", "refresh"], timeout_s=DOWNLOAD_S)
        if done.ok:
            return ours
        self.stale.append(f"zypper's metadata is old or absent, and could not be fetched: {done.last}")
        return ()

    @staticmethod
    def _metadata(folder: str) -> list[Path]:
        return sorted(Path(folder).glob("*/repodata/repomd.xml"))

    def _digest(self) -> str:
        """Of all metadata in use, which holds the hash of every package: a change of any makes us look again."""
        folder = f"{self.options[1]}/raw" if self.options else self.root.outside(RAW)
        found = self._metadata(folder)
        return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest() if found else ""

    def offer(self, owner: Owner) -> Offer:
        """As `Backend.offer`: the newest of the package that the kernel in use came in."""
        names = dict.fromkeys([owner.package, *owner.siblings])
        tree = self._asked("search", "--details", "--match-exact", "--type", "package", *names)
        digest = self._digest()
        found = [
            Package(each.get("name", ""), each.get("edition", ""), each.get("arch", ""), digest=digest)
            for each in tree.iter("solvable")
            if not each.get("repository", "").startswith("(")  # "(System Packages)": no repository has it any more
        ]
        machine = self.root.text("/proc/sys/kernel/arch", 64)
        found = [one for one in found if plain(one.name, one.version, one.arch) and machine in (None, one.arch)]
        images = [one for one in found if one.name == owner.package]
        if not images:
            raise Missing(
                f"No repository offers {owner.package}.", hint="Run `sudo zypper refresh`, and look at `zypper repos`."
            )
        image = max(images, key=lambda one: natural(one.version))
        same = {one.name: one for one in found if (one.version, one.arch) == (image.version, image.arch)}
        locks = [
            lock
            for each in self._asked("locks").iter("lock")
            if (lock := each.findtext("name") or "") and fnmatch.fnmatchcase(owner.package, lock)
        ]
        running = owner.version.removeprefix("0:")
        return Offer(
            image,
            None,
            (),
            tuple(same[name] for name in owner.siblings if name in same),
            held=tuple(f"{lock} is locked (zypper addlock)" for lock in locks),
            release_commands=tuple(paste(["sudo", "zypper", "removelock", lock]) for lock in locks),
            current=not newer(image.version, running),
        )

    def _asked(self, *words: str) -> "Element":
        from xml.etree import ElementTree as ET

        argv = ["zypper", *self.options, "--xmlout", "--non-interactive", "--no-refresh", *words]
        done = run(argv, timeout_s=QUERY_S)
        try:
            # zypper writes this itself, without a document type: there are no entities to expand.
            tree = ET.fromstring(done.out)  # noqa: S314
        except ET.ParseError as error:
            raise Missing(f"zypper could not be asked: {done.last}", hint=f"`{paste(argv)}` says more.") from error
        # 104: nothing was found (zypper(8), exit codes); the list is empty then.
        if not done.ok and done.code != 104:
            said = [each.text or "" for each in tree.iter() if each.tag in ("message", "description")]
            why = next((line.strip() for line in reversed(said) if line.strip()), done.last)
            raise Missing(f"zypper would not do it: {why.splitlines()[0]}", hint=f"`{paste(argv)}` says more.")
        return tree

    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """As `Backend.download`; works without root."""
        argv = [
            "zypper",
            *self.options,
            "--pkg-cache-dir",
            str(folder),
            "--non-interactive",
            "--no-refresh",
            "download",
        ]
        done = run([*argv, *map(_word, packages)], timeout_s=DOWNLOAD_S)
        if not done.ok:
            raise Missing(
                f"{packages[0].name} could not be downloaded: {telling(done)}", hint="Is the repository within reach?"
            )
        return [rpm.rpm_file(folder, package) for package in packages]

    def effect(self, offer: Offer, folder: Path) -> Effect:
        """As `Backend.effect`: zypper's own dry run."""
        del folder
        words = [*_how(), "--dry-run", *map(_word, offer.wanted)]
        tree = self._asked("install", *words)
        summary = tree.find("install-summary")
        if summary is None:
            raise Missing("zypper would not install anything.", hint=f"`zypper install {paste(words)}` says more.")

        def named(*tags: str) -> tuple[str, ...]:
            return tuple(
                f"{each.get('name')}={each.get('edition')}"
                for tag in tags
                for group in summary.iter(tag)
                for each in group.iter("solvable")
            )

        return Effect(
            named("to-install"),
            named("to-upgrade", "to-downgrade", "to-reinstall", "to-change-arch", "to-change-vendor"),
            named("to-remove"),
        )

    def fetch(self, offer: Offer, folder: Path) -> list[Path]:
        """As `Backend.fetch`: into a package cache of our own, from which zypper then installs."""
        argv = ["zypper", *self.options, "--pkg-cache-dir", str(folder), "--non-interactive", "--no-refresh", "install"]
        done = run([*argv, *_how(), "--download-only", *map(_word, offer.wanted)], timeout_s=DOWNLOAD_S)
        if not done.ok:
            raise Missing(
                f"{offer.image.label} could not be downloaded: {telling(done)}",
                hint="Nothing was changed. Is the repository within reach, and is there room?",
            )
        return [rpm.rpm_file(folder, package) for package in (offer.image, *offer.parts)]

    def install(self, offer: Offer, folder: Path) -> list[str]:
        """As `Backend.install`."""
        argv = ["zypper", *self.options, "--pkg-cache-dir", str(folder), "--non-interactive", "--no-refresh", "install"]
        return [*argv, *_how(), *map(_word, offer.wanted)]

    def commands(self, offer: Offer) -> tuple[str, ...]:
        """As `Backend.commands`."""
        return ("sudo zypper refresh", paste(["sudo", "zypper", "install", *map(_word, offer.wanted)]))

    def locks(self) -> tuple[str, ...]:
        """As `Backend.locks`."""
        return rpm.LOCKS


def _how() -> tuple[str, ...]:
    """Nothing beside it, and the licences are those of the kernel in use."""
    return ("--no-recommends", "--auto-agree-with-licenses")


def _word(package: Package) -> str:
    return f"{package.name}={package.version}"
