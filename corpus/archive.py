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

__all__ = [
    "SUITE",
    "cache_folder",
    "fetch",
    "fetch_source",
    "indexes",
    "locked",
    "mirror",
    "offered",
    "sources",
    "versions",
]

ARCHITECTURES = ("amd64", "arm64")
SUITE = "bookworm"
# Where the sources are that Debian's kernels are built from.
SOURCE_SUITES = (" trixie-backports", *(f"-security {name}-security" for name in ("bullseye", "bookworm", "trixie")))
# Where else Debian offers kernels, from Debian 11 to experimental: other kernels and other compilers.
EVERY_SUITE = (
    *(f" {name}" for name in ("bullseye", "bookworm", "trixie", "forky", "sid", "experimental")),
    *(f" {name}-backports" for name in ("bookworm", "trixie")),
    *(f"-security {name}-security" for name in ("bullseye", "bookworm", "trixie")),
)
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


def sources(signed_by: str | None = None, *, everywhere: bool = False) -> str:
    """The lines of a sources.list for Debian 12, or for every release of Debian that has kernels."""
    signed = f"[signed-by={signed_by}] " if signed_by else ""
    kinds: dict[str, tuple[str, ...]] = {"deb": (f" {SUITE}", f" {SUITE}-updates", f"-security {SUITE}-security")}
    if everywhere:
        kinds = {"deb": EVERY_SUITE, "deb-src": SOURCE_SUITES}
    return "".join(f"{kind} {signed}{mirror()}{suite} main\n" for kind, suites in kinds.items() for suite in suites)


@cache
def _options(everywhere: bool = False) -> tuple[str, ...]:
    """Apt's options for a private state with both architectures; its lists are fetched once a day at most.

    `everywhere`: of a second state, with every release of Debian; the first one's newest stays Debian 12's.
    """
    if shutil.which("apt-get") is None:
        raise Missing("apt-get was not found.", hint="Test kernels come from Debian's archive; run this on Debian.")
    if not Path(KEYRING).exists():
        raise Missing(f"{KEYRING}: no such file.", hint="Install the package debian-archive-keyring.")
    root = cache_folder() / ("apt-everywhere" if everywhere else "apt")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lines = sources(KEYRING, everywhere=everywhere)
    options = (
        f"-oDir::Etc::SourceList={root}/sources.list",
        "-oDir::Etc::SourceParts=-",
        f"-oDir::State={root}/state",
        f"-oDir::Cache={root}/cache",
        # Debian's container images switch these off: each call would then read all the lists anew.
        "-oDir::Cache::pkgcache=pkgcache.bin",
        "-oDir::Cache::srcpkgcache=srcpkgcache.bin",
        "-oDir::State::status=/var/lib/dpkg/status",
        "-oAPT::Architecture=amd64",
        *(f"-oAPT::Architectures::={architecture}" for architecture in ARCHITECTURES),
        "-oAPT::Sandbox::User=",
        "-oAcquire::Languages=none",
        "-qq",
    )
    stamp = root / "updated"
    with locked(root.name):
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


def _apt(*arguments: str, folder: Path | None = None, everywhere: bool = False) -> str:
    command = [arguments[0], *_options(everywhere), *arguments[1:]]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(arguments)
        raise Missing(f"`{said}` failed: {done.stderr.strip()[-400:]}", hint="Is the archive within reach?")
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


def indexes() -> Iterator[tuple[str, str]]:
    """Each package index of every release of Debian: (suite, its text)."""
    listed = _apt(
        "apt-get", "indextargets", "--format", "$(RELEASE)|$(FILENAME)", "Created-By: Packages", everywhere=True
    )
    for line in listed.splitlines():
        suite, _, name = line.partition("|")
        text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", name], check=True, capture_output=True, text=True)
        yield suite, text.stdout


def fetch_source(package: str, version: str, folder: Path) -> list[Path]:
    """The archives of a source package (upstream's and Debian's), downloaded into `folder`; `Missing` as `fetch`."""
    _apt(
        "apt-get", "source", "--download-only", "--only-source", f"{package}={version}", folder=folder, everywhere=True
    )
    return sorted(folder.glob("*.tar.*[!c]"))


def fetch(package: str, architecture: str = "amd64", version: str | None = None, *, everywhere: bool = False) -> Path:
    """The .deb of a package, downloaded on first use; raises `Missing` when the archive does not have it.

    `everywhere`: of any release of Debian, not of Debian 12 alone.
    """
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
            wanted = f"{package}:{architecture}" + (f"={version}" if version else "")
            _apt("apt-get", "download", wanted, folder=aside, everywhere=everywhere)
            downloaded = next(aside.glob("*.deb"))
            return downloaded.rename(folder / downloaded.name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
