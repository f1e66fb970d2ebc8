# SPDX-License-Identifier: GPL-2.0-or-later
"""Small whole systems to upgrade kernels in: real apt, dnf or zypper, in a chroot that is thrown away afterwards.

    with Box.make("apt") as box:
        box.install_running()                      # an affected kernel, as a package, and /proc and /sys as if it ran
        box.ejectable("fix", "upgrade", "--apply")

The systems are made by debootstrap once and copied for each use. /proc and /sys are files as `tests.host.trees` lays
them out. What runs inside has mounts of its own (unshare(1)): the checkout and Python, read-only, gone with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from corpus import kernel_packages
from corpus.archive import SUITE, cache_folder, locked, mirror, sources
from ejectable.errors import Missing

__all__ = ["Box", "Kind", "Ran", "usable"]

Kind = Literal["apt", "dnf", "zypper"]
# What kernels depend on, and (through python3) the libraries that this Python is linked with.
BASE = ("python3", "initramfs-tools", "linux-base", "kmod", "zstd", "ca-certificates")
MORE: dict[Kind, tuple[str, ...]] = {"apt": (), "dnf": ("dnf", "dnf-plugins-core", "rpm"), "zypper": ("zypper", "rpm")}
CHECKOUT = Path(__file__).resolve().parent.parent


class Ran(msgspec.Struct, frozen=True):
    """A program that ended."""

    code: int
    out: str
    err: str


def usable() -> str | None:
    """Why these systems cannot be made here; `None` where they can."""
    if os.geteuid() != 0:
        return "chroot needs root"
    lacking = [tool for tool in ("debootstrap", "unshare", "chroot") if shutil.which(tool) is None]
    return f"{', '.join(lacking)} not found: see requirements/debian.txt" if lacking else None


def base(kind: Kind) -> Path:
    """The folder of a system, made on first use: some minutes, for the download."""
    folder = cache_folder() / "chroots" / kind
    with locked(f"chroot-{kind}"):
        if folder.exists():
            return folder
        aside = folder.with_name(f".{kind}.part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if kind == "apt":
            _checked("debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, aside, mirror())
            (aside / "etc/apt/sources.list").write_text(sources())
        else:
            _checked("cp", "-a", base("apt"), aside)
            quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-install-recommends")
            _checked("chroot", aside, "apt-get", "-qq", "update")
            _checked("chroot", aside, *quiet, "install", *MORE[kind])
            _like_red_hat_or_suse(aside, kind)
        _checked("chroot", aside, "apt-get", "clean")
        # What nobody reads here only costs time, in every copy.
        for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists"):
            shutil.rmtree(aside / name)
            (aside / name).mkdir()
        aside.rename(folder)
    return folder


def _like_red_hat_or_suse(root: Path, kind: Kind) -> None:
    """Debian's rpm keeps a database per user, and Debian's dnf has plugins of no use here."""
    (root / "etc/rpm").mkdir(exist_ok=True)
    (root / "etc/rpm/macros").write_text("%_dbpath /var/lib/rpm\n")
    for name in ("local", "copr"):
        (root / f"etc/dnf/plugins/{name}.conf").unlink(missing_ok=True)
    if kind == "zypper":
        # As SUSE ships it: kernels come beside each other.
        (root / "etc/zypp/zypp.conf").write_text("[main]\nmultiversion = provides:multiversion(kernel)\n")


class Box:
    """One throw-away system. Paths of its own are given from its root."""

    def __init__(self, root: Path, kind: Kind) -> None:
        self.root = root
        self.kind = kind
        self.env: dict[str, str] = {}  # beside the usual, for what runs inside

    @classmethod
    @contextmanager
    def make(cls, kind: Kind) -> Iterator["Box"]:
        """A fresh copy; removed at the end."""
        original = base(kind)
        folder = Path(tempfile.mkdtemp(prefix="ejectable-box-", dir=cache_folder()))
        try:
            root = folder / "root"
            root.mkdir()
            # Package managers put new files beside those of /usr, or rename them into place: links are enough.
            parts = sorted(path for path in original.iterdir() if path.name != "usr")
            _checked("cp", "-a", "--link", original / "usr", root)
            _checked("cp", "-a", *parts, root)
            (root / "root").chmod(0o755)  # this Python may lie below a home, and other users run it as well
            yield cls(root, kind)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def command(self, argv: Sequence[str | Path], *, user: str | None = None, mounts: str = "") -> list[str]:
        """The command line that runs a program inside, in mounts of its own."""
        shown = [path for path in dict.fromkeys((str(CHECKOUT), sys.base_prefix, sys.prefix)) if path != "/usr"]
        binds = [
            f'mkdir -p "{self.root}{path}" && mount --rbind "{path}" "{self.root}{path}" '
            f'&& mount -o remount,bind,ro "{self.root}{path}"'
            for path in shown
        ]
        script = " && ".join(["set -e", *binds, *([mounts] if mounts else []), 'exec "$@"'])
        who = [f"--userspec={user}"] if user else []
        return ["unshare", "--mount", "sh", "-c", script, "sh", "chroot", *who, str(self.root), *map(str, argv)]

    def run(
        self, *argv: str | Path, user: str | None = None, mounts: str = "", env: dict[str, str] | None = None
    ) -> Ran:
        """Run a program inside to its end."""
        done = subprocess.run(
            self.command(argv, user=user, mounts=mounts),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**_environment("/tmp" if user else "/root"), **self.env, **(env or {})},
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ejectable(self, *words: str, user: str | None = None, mounts: str = "") -> Ran:
        """Run ejectable inside."""
        return self.run(sys.executable, "-m", "ejectable", *words, user=user, mounts=mounts)

    def checked(self, *argv: str | Path) -> str:
        """Run a program inside that must succeed."""
        done = self.run(*argv)
        if done.code:
            raise Missing(f"`{' '.join(map(str, argv))}` failed in the chroot: {done.err[-600:] or done.out[-600:]}")
        return done.out

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        there = self.root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)

    @cached_property
    def repository(self) -> Path:
        """The folder of the local repository, inside at /srv/repository."""
        folder = self.root / "srv/repository"
        folder.mkdir(parents=True)
        return folder

    def offer(self, *packages: Path, url: str = "file:///srv/repository") -> None:
        """Put packages into the local repository, make its lists anew, and let the package manager use it alone."""
        for package in packages:
            target = self.repository / package.name
            target.unlink(missing_ok=True)
            shutil.copy(package, target)
        if self.kind == "apt":
            listing = subprocess.run(
                ["dpkg-scanpackages", "--multiversion", "."], cwd=self.repository, check=True, capture_output=True
            ).stdout
            (self.repository / "Packages").write_bytes(listing)
            self.write("/etc/apt/sources.list", f"deb [trusted=yes] {url} ./\n")
            self.checked("apt-get", "-qq", "update")
            return
        _checked("createrepo_c", "--quiet", self.repository)
        repository = f"[kernels]\nname=kernels\nbaseurl={url}\nenabled=1\ngpgcheck=0\nautorefresh=1\n"
        if self.kind == "dnf":
            self.write("/etc/yum.repos.d/kernels.repo", repository)
            self.checked("dnf", "-q", "clean", "all")
            self.checked("dnf", "-q", "makecache")
        else:
            self.write("/etc/zypp/repos.d/kernels.repo", repository)
            self.checked("zypper", "--non-interactive", "--quiet", "--no-gpg-checks", "refresh", "--force")

    def install_running(self, *, split: bool = False) -> str:
        """Install an affected kernel as its packages, and make /proc and /sys say that it runs; its release.

        `split`: in several packages, as Ubuntu has it.
        """
        from tests.host.trees import Machine, affected_module, boot_image_banner

        release = kernel_packages.RELEASES[0]
        if self.kind == "apt":
            debs = (
                kernel_packages.split_debs(release, "affected") if split else [kernel_packages.deb(release, "affected")]
            )
            for package in debs:
                shutil.copy(package, self.root / "tmp" / package.name)
            self.checked("env", "INITRD=No", "dpkg", "--install", *(f"/tmp/{each.name}" for each in debs))
        else:
            found = [
                kernel_packages.system_rpm(),
                *kernel_packages.rpms(release, "affected", suse=self.kind == "zypper"),
            ]
            for package in found:
                shutil.copy(package, self.root / "tmp" / package.name)
            self.checked("rpm", "--install", "--nodeps", "--force-debian", *(f"/tmp/{each.name}" for each in found))
        module = affected_module()
        Machine(image=False, loaded=module, version=boot_image_banner()).build(self.root)
        if self.kind == "zypper":
            self.write("/etc/os-release", 'PRETTY_NAME="openSUSE"\nID=opensuse\nID_LIKE="suse opensuse"\n')
        elif self.kind == "dnf":
            self.write("/etc/os-release", 'PRETTY_NAME="Fedora Linux"\nID=fedora\n')
        return release

    def state(self) -> str:
        """What is installed and what lies in /boot and /lib/modules: to see that nothing was left behind."""
        packages = (
            self.checked("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n")
            if self.kind == "apt"
            else self.checked("rpm", "-qa")
        )
        files = sorted(
            str(p.relative_to(self.root)) for f in ("boot", "usr/lib/modules") for p in (self.root / f).rglob("*")
        )
        return "\n".join([*sorted(packages.splitlines()), *files])


def _environment(home: str) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/tmp",
        **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
    }


def _checked(*command: str | Path) -> None:
    done = subprocess.run(["nice", "-n", "10", *map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise Missing(f"`{' '.join(map(str, command))}` failed: {said}", hint="Is Debian's archive within reach?")
