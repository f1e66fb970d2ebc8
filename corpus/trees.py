# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel sources and headers, unpacked into the cache, not installed: what builds start from.

The headers packages hold absolute paths to /usr/src; they are turned round to the cache. The build programs
(fixdep, modpost, ...) of an arm64 headers package are arm64's, so those of amd64's linux-kbuild take their place.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from corpus.archive import cache_folder, fetch, locked
from ejectable.errors import Missing

__all__ = ["architecture_of", "headers", "source", "source_version", "unpack_deb"]


def architecture_of(release: str) -> str:
    """`amd64` or `arm64`, from a release such as 6.1.0-50-cloud-amd64 or 6.12.117+deb12-arm64-16k."""
    return "arm64" if "-arm64" in release else "amd64"


def unpack_deb(deb: Path, folder: Path) -> None:
    """Unpack the files of a package into `folder`."""
    subprocess.run(["nice", "-n", "10", "dpkg-deb", "-x", deb, folder], check=True, capture_output=True)


def source_version(family: str) -> str:
    """The package and version that `source(family)` is unpacked from, such as `linux-source-6.1 6.1.192-2`."""
    deb = fetch(f"linux-source-{family}")
    return " ".join(deb.name.split("_")[:2])


@cache
def source(family: str) -> Path:
    """The kernel tree of linux-source-6.1 or -6.12 (family "6.1", "6.12"), unpacked and never changed."""
    deb = fetch(f"linux-source-{family}")
    folder = cache_folder() / "trees" / deb.stem
    with locked(f"tree-source-{family}"):
        if not folder.exists():
            aside = folder.with_name(folder.name + ".part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            inside = f"./usr/src/linux-source-{family}.tar.xz"
            with (
                subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as outer,
                subprocess.Popen(["tar", "xO", inside], stdin=outer.stdout, stdout=subprocess.PIPE) as inner,
            ):
                unpack: list[str | Path] = ["nice", "-n", "10", "tar", "xJ", "--strip-components=1", "-C", aside]
                subprocess.run(unpack, stdin=inner.stdout, check=True)
            if outer.returncode or inner.returncode:
                raise Missing(f"{deb} could not be unpacked.", hint="Delete it, so that it is downloaded again.")
            aside.rename(folder)
    return folder


@cache
def headers(release: str) -> Path:
    """The tree to build modules for `release` with (`make -C` it), from linux-headers-*, -common and linux-kbuild."""
    root = cache_folder() / "trees" / f"headers-{release}"
    tree = root / "usr/src" / f"linux-headers-{release}"
    with locked(f"tree-headers-{release}"):
        if root.exists():
            return tree
        own = fetch(f"linux-headers-{release}", architecture_of(release))
        depends = subprocess.run(["dpkg-deb", "-f", own, "Depends"], check=True, capture_output=True, text=True).stdout
        aside = root.with_name(root.name + ".part")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        unpack_deb(own, aside)
        for package in re.findall(r"linux-headers-\S+-common\S*|linux-kbuild-\S+", depends):
            unpack_deb(fetch(package.rstrip(",")), aside)
        for name in ("Makefile", ".kernelvariables"):
            file = aside / "usr/src" / tree.name / name
            file.write_text(file.read_text().replace("/usr/src/", f"{root}/usr/src/"))
        aside.rename(root)
    return tree
