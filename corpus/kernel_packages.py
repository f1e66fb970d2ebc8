# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel packages with the defect or the fix in them, as distributions lay them out: for proofs of the upgrade.

    deb("6.1.0-56-cloud-amd64", "affected")         Debian's package, its virtio_pci.ko swapped
    rpms("6.1.0-56-cloud-amd64", "fixed")           kernel, kernel-core and kernel-modules-core, as Fedora has them
    rpms("6.1.0-56-cloud-amd64", "fixed", suse=True)    kernel-default, as SUSE has it

The image is Debian's, the module is built from Debian's source with the edit of `corpus.patches`.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from corpus.archive import cache_folder, fetch, locked
from corpus.modules import faulty_module
from ejectable.errors import Missing

__all__ = ["RELEASES", "deb", "meta_deb", "rpms", "split_debs", "system_rpm", "version_of"]

# The kernel in use, a newer one, the newest: any three of Debian's would do.
RELEASES = ("6.1.0-50-cloud-amd64", "6.1.0-54-cloud-amd64", "6.1.0-56-cloud-amd64")
FAST = ("-Zgzip", "-z1")  # packed quickly, read quickly; what is packed is the same

SPEC = """\
Name: {name}
Version: {version}
Release: {number}
Summary: Linux {release}, for a proof
License: GPL-2.0-only
BuildArch: x86_64
{head}
%define _binary_payload w1.gzdio
%define __strip /bin/true
%define debug_package %{{nil}}
%global __os_install_post %{{nil}}
AutoReqProv: no

%description
{release}
{packages}
"""
FEDORA_HEAD = "Requires: kernel-core = %{version}-%{release}\nProvides: installonlypkg(kernel)"
FEDORA = """
%files

%package core
Summary: The image
Provides: installonlypkg(kernel)
Requires: kernel-modules-core = %{{version}}-%{{release}}
AutoReqProv: no
%description core
The image.
%files core
/lib/modules/{release}/vmlinuz
/lib/modules/{release}/config
/lib/modules/{release}/modules.builtin
%dir /lib/modules/{release}
%post core
{post}
cp /lib/modules/{release}/vmlinuz /boot/vmlinuz-{release}
cd / && find lib/modules/{release}/kernel | cpio -o -H newc --quiet > /boot/initramfs-{release}.img
%postun core
rm -f /boot/vmlinuz-{release} /boot/initramfs-{release}.img

%package modules-core
Summary: The modules
Provides: installonlypkg(kernel-module)
AutoReqProv: no
%description modules-core
The modules.
%files modules-core
%dir /lib/modules/{release}
/lib/modules/{release}/kernel
"""
SUSE_HEAD = "Provides: multiversion(kernel)"
SUSE = """
%files
/boot/vmlinuz-{release}
/lib/modules/{release}
%pre
{post}
%post
cd / && find lib/modules/{release}/kernel | cpio -o -H newc --quiet > /boot/initrd-{release}
%postun
rm -f /boot/initrd-{release}
"""

SYSTEM = """\
Name: system-release
Version: 40
Release: 1
Summary: Stands for the rest of the system
License: GPL-2.0-only
BuildArch: noarch
Provides: /bin/sh
Provides: system-release(releasever) = 40
%description
What a kernel's scriptlets need is there, though no package of rpm's brought it.
%files
"""


def version_of(release: str) -> str:
    """The version of Debian's package of a release."""
    return fetch(f"linux-image-{release}").name.split("_")[1]


def deb(release: str, variant: str, *, fails: bool = False, lies: bool = False, version: str = "") -> Path:
    """Debian's package of `release` with another virtio_pci.ko in it.

    `fails`: its postinst ends with 1; `lies`: it says that it takes next to no room; `version`: another one.
    """
    package = f"linux-image-{release}"
    folder = _folder(f"{package}-{variant}{'-fails' if fails else ''}{'-lies' if lies else ''}{version}")
    with locked(folder.name):
        made = sorted(folder.glob("*.deb"))
        if made:
            return made[0]
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        _run("dpkg-deb", "-R", fetch(package), work)
        target = next((work / "lib/modules" / release).rglob("virtio_pci.ko"))
        shutil.copy(faulty_module(release, variant), target)
        sums = work / "DEBIAN/md5sums"
        inside = str(target.relative_to(work))
        lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {inside}")]
        lines.append(f"{hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest()}  {inside}")
        sums.write_text("\n".join(lines) + "\n")
        if fails:
            (work / "DEBIAN/postinst").write_text("#!/bin/sh\necho 'no space left for the initramfs' >&2\nexit 1\n")
        control = work / "DEBIAN/control"
        for field, value in (("Installed-Size", "1" if lies else ""), ("Version", version)):
            if value:
                control.write_text(
                    re.sub(rf"^{field}: .*", f"{field}: {value}", control.read_text(), flags=re.MULTILINE)
                )
        _run("dpkg-deb", "--root-owner-group", *FAST, "-b", work, folder)
        shutil.rmtree(work)
        return next(folder.glob("*.deb"))


def split_debs(release: str, variant: str) -> list[Path]:
    """The same kernel as Ubuntu splits it: the image alone, its modules, some more modules, and the metapackage."""
    folder = _folder(f"split-{release}-{variant}")
    with locked(folder.name):
        if made := sorted(folder.glob("*.deb")):
            return made
        whole = folder / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        _run("dpkg-deb", "-x", deb(release, variant), whole)
        flavour = release.partition("-")[2].partition("-")[2]
        modules = whole / "lib/modules" / release
        contents = {
            f"linux-modules-{release}": ([modules / "kernel/drivers/virtio", modules / "modules.builtin"], ""),
            f"linux-modules-extra-{release}": ([modules / "kernel/drivers/net"], f"linux-modules-{release}"),
            f"linux-image-{release}": ([whole / "boot"], f"linux-modules-{release}"),
            f"linux-image-{flavour}": ([], f"linux-image-{release}, linux-modules-extra-{release}"),
        }
        for name, (parts, depends) in contents.items():
            work = folder / name
            (work / "DEBIAN").mkdir(parents=True)
            (work / "DEBIAN/control").write_text(
                f"Package: {name}\nVersion: {version_of(release)}\nArchitecture: amd64\nSection: kernel\n"
                "Maintainer: a proof <proof@example.org>\n"
                f"{f'Depends: {depends}' if depends else 'Priority: optional'}\nDescription: Linux {release}\n"
            )
            for part in parts:
                target = work / part.relative_to(whole)
                target.parent.mkdir(parents=True, exist_ok=True)
                part.rename(target)
            _run("dpkg-deb", "--root-owner-group", *FAST, "-b", work, folder)
            shutil.rmtree(work)
        shutil.rmtree(whole)
        return sorted(folder.glob("*.deb"))


def meta_deb(release: str, folder: Path) -> Path:
    """The metapackage that leads to `release`, as Debian makes it; written into `folder`."""
    flavour = release.partition("-")[2].partition("-")[2]
    version = version_of(release)
    work = folder / f"meta-{release}"
    (work / "DEBIAN").mkdir(parents=True)
    (work / "DEBIAN/control").write_text(
        f"Package: linux-image-{flavour}\nVersion: {version}\nArchitecture: amd64\nSection: kernel\n"
        "Maintainer: a proof <proof@example.org>\n"
        f"Depends: linux-image-{release} (= {version})\nDescription: Linux (meta-package)\n"
    )
    _run("dpkg-deb", "--root-owner-group", *FAST, "-b", work, folder)
    shutil.rmtree(work)
    return folder / f"linux-image-{flavour}_{version}_amd64.deb"


def rpms(release: str, variant: str, *, suse: bool = False, fails: bool = False) -> list[Path]:
    """The packages of a kernel, as Fedora or SUSE split them; `fails`: a scriptlet ends with 1."""
    kind = "suse" if suse else "fedora"
    folder = _folder(f"rpm-{kind}-{release}-{variant}{'-fails' if fails else ''}")
    with locked(folder.name):
        made = sorted(folder.glob("*.rpm"))
        if made:
            return made
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        _lay_out(release, variant, work / "root", suse=suse)
        # 6.1.0-56-cloud-amd64 → version 6.1.0, release 56.
        version, number = release.split("-")[:2]
        post = "exit 1" if fails else ":"
        spec = work / "kernel.spec"
        spec.write_text(
            SPEC.format(
                name="kernel-default" if suse else "kernel",
                version=version,
                number=number,
                release=release,
                head=SUSE_HEAD if suse else FEDORA_HEAD,
                packages=(SUSE if suse else FEDORA).format(release=release, post=post),
            )
        )
        options = [
            f"--define=_topdir {work}",
            f"--define=_rpmdir {work}/out",
            "--target=x86_64-linux",
            "-bb",
            "--quiet",
        ]
        _run("rpmbuild", *options, f"--buildroot={work}/root", spec)
        for path in sorted((work / "out").rglob("*.rpm")):
            path.rename(folder / path.name)
        shutil.rmtree(work)
        return sorted(folder.glob("*.rpm"))


def system_rpm() -> Path:
    """A package that stands for the system below: it provides /bin/sh, and tells dnf which release this is."""
    folder = _folder("rpm-system")
    with locked(folder.name):
        made = sorted(folder.glob("*.rpm"))
        if not made:
            spec = folder / "system.spec"
            spec.write_text(SYSTEM)
            _run(
                "rpmbuild", f"--define=_topdir {folder}/work", f"--define=_rpmdir {folder}/out", "-bb", "--quiet", spec
            )
            for path in (folder / "out").rglob("*.rpm"):
                path.rename(folder / path.name)
        return next(folder.glob("*.rpm"))


def _lay_out(release: str, variant: str, root: Path, *, suse: bool) -> None:
    """The files of the kernel as the distribution has them; of the modules, those of drivers/virtio."""
    whole = root.with_name("whole")
    whole.mkdir(parents=True)
    _run("dpkg-deb", "-x", fetch(f"linux-image-{release}"), whole)
    modules = root / "lib/modules" / release
    inside = "kernel/drivers/virtio"
    shutil.copytree(whole / "lib/modules" / release / inside, modules / inside)
    shutil.copy(faulty_module(release, variant), modules / inside / "virtio_pci.ko")
    shutil.copy(whole / "lib/modules" / release / "modules.builtin", modules)
    shutil.copy(whole / f"boot/vmlinuz-{release}", modules / "vmlinuz")
    shutil.copy(whole / f"boot/config-{release}", modules / "config")
    if suse:
        (root / "boot").mkdir()
        (modules / "vmlinuz").rename(root / f"boot/vmlinuz-{release}")
        (modules / "vmlinuz").symlink_to(f"../../../boot/vmlinuz-{release}")
    shutil.rmtree(whole)


def _folder(name: str) -> Path:
    folder = cache_folder() / "repacked" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        ["nice", "-n", "10", *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": "1700000000"},
    )
    if done.returncode:
        raise Missing(f"`{command[0]}` failed: {done.stderr.strip()[-400:]}", hint="See requirements/debian.txt.")
