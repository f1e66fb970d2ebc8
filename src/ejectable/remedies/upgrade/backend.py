# SPDX-License-Identifier: GPL-2.0-or-later
"""What every package manager is asked for, and the words of its answers."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from ejectable import host
from ejectable.remedies.commands import Finished

__all__ = ["Backend", "Effect", "Offer", "Owner", "Package", "not_newer", "number", "plain", "telling"]

# Names and versions as Debian's policy and rpm allow them: no slash, no blank, no dash in front. They come out of an
# archive's lists, and become words of commands and names of files.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^:-]*", re.ASCII)


class Package(msgspec.Struct, frozen=True):
    """A package in one version, as the lists of the package manager have it."""

    name: str
    version: str
    arch: str
    digest: str = ""  # what tells it from another one of the same version: its hash, or that of the list it is in
    size: int | None = None  # bytes to download
    installed_size: int | None = None  # bytes

    @property
    def label(self) -> str:
        """For a person."""
        return f"{self.name} {self.version.removeprefix('0:')}"


class Owner(msgspec.Struct, frozen=True):
    """The package that the kernel in use came in."""

    package: str
    version: str
    release: str  # uname -r
    flavour: str | None
    followed: tuple[str, ...] = ()  # installed metapackages that lead to the kernels of this flavour
    siblings: tuple[str, ...] = ()  # installed packages of the same kernel, the owner included

    @property
    def label(self) -> str:
        """For a person."""
        return f"{self.package} {self.version.removeprefix('0:')}"


class Offer(msgspec.Struct, frozen=True):
    """The newest kernel on offer."""

    image: Package
    release: str | None  # as names tell; what the kernel itself says comes when it is read
    parts: tuple[Package, ...]  # the other packages of the same kernel whose modules may be needed to judge it
    wanted: tuple[Package, ...]  # what is to be installed: image, modules, headers, as they are for the kernel in use
    via: str | None = None  # the metapackage that led to it
    held: tuple[str, ...] = ()  # why the package manager would not install it, each with who decided that
    release_commands: tuple[str, ...] = ()  # that let go of what holds it
    in_place: bool = False  # it replaces the files of the kernel in use
    current: bool = False  # it is what is installed and in use already, or older


class Effect(msgspec.Struct, frozen=True):
    """What an installation would do, as the package manager's own simulation tells."""

    new: tuple[str, ...]  # packages that are not there yet, as the package manager takes them for removal
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Backend(ABC):
    """One package manager on the machine that this runs on. Every method may raise `Missing` or `BadInput`."""

    name: ClassVar[Literal["apt", "dnf", "zypper"]]

    def __init__(self, root: host.Root, *, offline: bool) -> None:
        self.root = root
        self.offline = offline
        self.notes: list[str] = []  # what limits the answers
        self.stale: list[str] = []  # why there may be newer kernels than those that it knows, in sentences

    @abstractmethod
    def owner(self, release: str) -> Owner | None:
        """The package that the image of `release` came in; `None` where none did."""

    @abstractmethod
    def offer(self, owner: Owner) -> Offer:
        """The newest kernel of the same kind; raises `Missing` where the lists have none."""

    @abstractmethod
    def download(self, packages: Sequence[Package], folder: Path) -> list[Path]:
        """Download packages, without installing anything; the files, in the same order."""

    @abstractmethod
    def effect(self, offer: Offer, folder: Path) -> Effect:
        """Simulate the installation."""

    @abstractmethod
    def fetch(self, offer: Offer, folder: Path) -> list[Path]:
        """As root: download all that the installation takes; the files of the image and of the parts."""

    @abstractmethod
    def install(self, offer: Offer, folder: Path) -> list[str]:
        """The command that installs exactly what `fetch` left in `folder`."""

    def before(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """What would bring back the versions of these packages that are installed now; `None` where nothing does."""
        return None if names else ()

    @abstractmethod
    def commands(self, offer: Offer) -> tuple[str, ...]:
        """The commands that a person would paste to install it."""

    def tidy(self) -> None:  # noqa: B027  (most have nothing to do)
        """Remove what `fetch` left outside of the folder that it was given."""

    @abstractmethod
    def locks(self) -> tuple[str, ...]:
        """The files that the package manager locks while it works."""


def not_newer(backend: Backend, owner: Owner) -> str:
    """What to say where the newest kernel that is known is the one in use: only fresh lists know that there is none."""
    if backend.stale:
        return (
            f"Whether {backend.name} offers a newer kernel than {owner.label}, which is in use, is not known: "
            f"{backend.stale[0]}"
        )
    return (
        f"{owner.label}, which is in use, is the newest kernel that {backend.name} offers: there is none to upgrade to "
        "yet."
    )


def plain(*texts: str) -> bool:
    """Whether these may be the name, version or architecture of a package."""
    return all(len(text) < 256 and WORD.fullmatch(text) for text in texts)


def number(text: str | None, unit: int = 1) -> int | None:
    """A size in bytes out of metadata, given in `unit`; `None` for what is none."""
    return int(text) * unit if text and text.isdecimal() and len(text) < 16 else None


def telling(done: Finished) -> str:
    """The first lines that tell what went wrong; the last one often says only that something did."""
    lines = [line.strip().rstrip(".") for line in f"{done.err}\n{done.out}".splitlines()]
    found = [
        line for line in lines if re.search(r"error|cannot|fail|no space|exit status|timeout", line, re.IGNORECASE)
    ]
    return "; ".join(dict.fromkeys(_shortened(line) for line in found[:3])) or done.last


def _shortened(line: str) -> str:
    """A line that is long for its paths, without its middle: the reason stands at its end."""
    return line if len(line) <= 160 else f"{line[:60]} ... {line[-90:]}"
