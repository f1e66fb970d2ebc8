# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages from Debian 12's archive, kept in a cache outside the tree, whatever Debian or Ubuntu this runs on.

apt runs with sources and a state directory of its own, so that arm64 packages can be fetched on an amd64 machine (and
the other way round) without adding anything to the system, and without root. Where the archive is, the system's own
sources say; EJECTABLE_DEBIAN names another mirror, as http://mirror.example (with debian and debian-security in it).
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ejectable.errors import Missing

__all__ = ["SUITE", "cache_folder", "fetch", "locked", "mirror", "offered", "sources", "versions"]

ARCHITECTURES = ("amd64", "arm64")
SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"  # package debian-archive-keyring, on Ubuntu too
TEMPLATE = Path("/usr/share/python-apt/templates/Debian.info")  # package python-apt-common, on Ubuntu too


def cache_folder() -> Path:
    """Where downloads and builds are kept: $EJECTABLE_CORPUS, else the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("EJECTABLE_CORPUS") or Path(base) / "ejectable-corpus")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, among parallel test workers too."""
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def mirror() -> str:
    """Debian's archive, as http://mirror.example/debian; the security archive is beside it.

    It is $EJECTABLE_DEBIAN's, else the one that apt uses here (a Debian), else the one that python-apt knows.
    Raises `Missing` where nobody says.
    """
    if named := os.environ.get("EJECTABLE_DEBIAN"):
        return f"{named.rstrip('/')}/debian"
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(COMPONENT) $(REPO_URI)"]
    used = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    known = TEMPLATE.read_text(encoding="utf-8") if TEMPLATE.exists() else ""
    return _archive_in(used) or _archive_in(known.replace("BaseURI:", "main")) or _nobody_says()


def _archive_in(lines: str) -> str | None:
    """The first address of a whole Debian archive among lines of a component and a URI.

    Not https, which needs certificates that a small system lacks: apt checks the archive's signature.
    """
    for line in lines.splitlines():
        component, _, uri = line.strip().partition(" ")
        scheme, _, place = uri.strip().rstrip("/").partition("://")
        if component == "main" and scheme in ("http", "https") and place.endswith("/debian"):
            return f"http://{place}"
    return None


def _nobody_says() -> str:
    raise Missing(
        "Where Debian's archive is, neither apt nor python-apt says.",
        hint="Name a mirror (EJECTABLE_DEBIAN=http://...), or install the package python-apt-common.",
    )


def sources(signed_by: str | None = None) -> str:
    """The lines of a sources.list for Debian 12."""
    signed = f"[signed-by={signed_by}] " if signed_by else ""
    suites = (f" {SUITE}", f" {SUITE}-updates", f"-security {SUITE}-security")
    return "".join(f"deb {signed}{mirror()}{suite} main\n" for suite in suites)


@cache
def _options() -> tuple[str, ...]:
    """Apt's options for a private state with both architectures; its lists are fetched once a day at most."""
    if shutil.which("apt-get") is None:
        raise Missing("apt-get was not found.", hint="Test kernels come from Debian's archive; run this on Debian.")
    if not Path(KEYRING).exists():
        raise Missing(f"{KEYRING}: no such file.", hint="Install the package debian-archive-keyring.")
    root = cache_folder() / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lines = sources(KEYRING)
    options = (
        f"-oDir::Etc::SourceList={root}/sources.list",
        "-oDir::Etc::SourceParts=-",
        f"-oDir::State={root}/state",
        f"-oDir::Cache={root}/cache",
        "-oDir::State::status=/var/lib/dpkg/status",
        "-oAPT::Architecture=amd64",
        *(f"-oAPT::Architectures::={architecture}" for architecture in ARCHITECTURES),
        "-oAPT::Sandbox::User=",
        "-oAcquire::Languages=none",
        "-qq",
    )
    stamp = root / "updated"
    with locked("apt"):
        import time

        listed = root / "sources.list"
        if not listed.exists() or listed.read_text(encoding="utf-8") != lines:
            listed.write_text(lines, encoding="utf-8")
            stamp.unlink(missing_ok=True)
        if not stamp.exists() or time.time() - stamp.stat().st_mtime > 86400:
            # What goes wrong here is noticed when a package is missing.
            subprocess.run(["apt-get", *options, "update"], check=False, capture_output=True)
            stamp.touch()
    return options


def _apt(*arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [arguments[0], *_options(), *arguments[1:]], cwd=folder, check=False, capture_output=True, text=True
    )
    if done.returncode:
        command = " ".join(arguments)
        raise Missing(f"`{command}` failed: {done.stderr.strip()[-400:]}", hint="Is the archive within reach?")
    return done.stdout


@cache
def offered(prefix: str) -> tuple[str, ...]:
    """The names of the packages that begin with `prefix`, sorted."""
    return tuple(sorted(_apt("apt-cache", "pkgnames", prefix).split()))


@cache
def versions(package: str, architecture: str = "amd64") -> tuple[str, ...]:
    """The versions on offer of a package, newest first; empty where there is none."""
    output = _apt("apt-cache", "madison", f"{package}:{architecture}")
    return tuple(dict.fromkeys(line.split("|")[1].strip() for line in output.splitlines() if "|" in line))


def fetch(package: str, architecture: str = "amd64", version: str | None = None) -> Path:
    """The .deb of a package, downloaded on first use; raises `Missing` when the archive does not have it."""
    folder = cache_folder() / "debs"
    folder.mkdir(exist_ok=True)
    pattern = f"{package}_{version.replace(':', '%3a') if version else '*'}_*.deb"
    with locked(f"deb-{package}-{architecture}"):
        present = [path for path in folder.glob(pattern) if path.stem.endswith((f"_{architecture}", "_all"))]
        if present:
            return max(present, key=lambda path: path.stat().st_mtime)
        aside = folder / f"{package}-{architecture}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            _apt("apt-get", "download", f"{package}:{architecture}" + (f"={version}" if version else ""), folder=aside)
            downloaded = next(aside.glob("*.deb"))
            return downloaded.rename(folder / downloaded.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
