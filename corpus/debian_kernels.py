# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel packages Debian offers in all of its releases, and what is true of them by their source.

    python -m corpus.debian_kernels        renews corpus/debian_kernels.txt: a package a line

Of each upstream version, release of Debian and flavour the newest package is listed; of the cloud flavours, which are
small, the oldest as well. The truth comes from the source: the callback came with v6.8 (fd27ef6b44be) and went with
v6.11, and versions between are not listed, because a package's name does not say whether the call is guarded.
`--sources` looks for it in drivers/virtio of each version's newest source on offer; the list's head names those.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch, fetch_source, indexes
from ejectable.errors import Missing

__all__ = ["DebianKernel", "listed", "main"]

LIST = Path(__file__).with_suffix(".txt")
CALLBACK = "->is_avq"  # what is called without being tested, of struct virtio_pci_device
INTRODUCED, REMOVED = (6, 8), (6, 11)
# linux-image-* holds image and modules; Debian 14 splits it, and linux-binary-* holds the image.
NAME = re.compile(
    r"linux-(?:image|binary)-(?:unsigned-)?(?P<family>\d+\.\d+)\S*?"
    r"-(?P<flavour>(?:cloud-|rt-)?(?:amd64|arm64)(?:-16k)?)(?:-unsigned)?"
)
COMPILERS = {"deb11": "gcc-10", "deb12": "gcc-12", "deb13": "gcc-14", "deb14": "gcc-16", "": "gcc-16"}
HEADER = """\
# SPDX-License-Identifier: GPL-2.0-or-later
# Written by `python -m corpus.debian_kernels`: package, version, architecture, compiler, suite.
# Versions before v6.8 and from v6.11 on, whose sources have no callback ->is_avq in drivers/virtio; looked through:
"""


class DebianKernel(msgspec.Struct, frozen=True, kw_only=True):
    """One package with a kernel image."""

    package: str
    version: str
    architecture: str
    compiler: str
    suite: str

    @property
    def name(self) -> str:
        """Of the package."""
        return self.package

    @property
    def family(self) -> str:
        """The upstream version, such as 6.12."""
        return _match(self.package)["family"]

    def path(self) -> Path:
        """The .deb, downloaded on first use; raises `Missing` where Debian no longer offers it."""
        return fetch(self.package, self.architecture, self.version, everywhere=True)


def listed() -> list[DebianKernel]:
    """The packages of the list."""
    rows = [line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    fields = DebianKernel.__struct_fields__
    return [DebianKernel(**dict(zip(fields, row, strict=True))) for row in rows]


def _match(package: str) -> re.Match[str]:
    found = NAME.fullmatch(package)
    assert found, package
    return found


def _on_offer() -> list[DebianKernel]:
    """Every package with a kernel image, once; the unsigned ones where there is no signed one."""
    found: dict[tuple[str, str, str], DebianKernel] = {}
    for suite, text in indexes():
        for paragraph in text.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Architecture|Size): (.*)$", paragraph, re.MULTILINE))
            name = fields.get("Package", "")
            # Metapackages are small.
            if NAME.fullmatch(name) and int(fields["Size"]) > 5 << 20:
                plain = name.replace("-unsigned", "")
                key = plain, fields["Version"], fields["Architecture"]
                made = DebianKernel(
                    package=name,
                    version=fields["Version"],
                    architecture=fields["Architecture"],
                    compiler=COMPILERS[_release(name, fields["Version"])],
                    suite=suite,
                )
                if key not in found or name == plain:
                    found[key] = made
    return list(found.values())


def _release(package: str, version: str) -> str:
    """Which Debian a package was built on: deb11 to deb14; "" for experimental's."""
    if found := re.search(r"deb1\d", package + version):
        return found[0]
    if found := re.search(r"~bpo(1\d)", version):
        return f"deb{found[1]}"
    if version.startswith("5.10"):
        return "deb11"
    return "deb12" if version.startswith("6.1.") else ""


def _chosen(kernels: list[DebianKernel]) -> list[DebianKernel]:
    groups: defaultdict[tuple[str, ...], list[DebianKernel]] = defaultdict(list)
    for kernel in kernels:
        flavour = _match(kernel.package)["flavour"]
        kind = kernel.version.partition("~")[2][:3]  # a backport is built otherwise than what it is made from
        groups[kernel.family, kernel.compiler, kind, flavour].append(kernel)
    chosen: list[DebianKernel] = []
    for group in groups.values():
        group.sort(key=_age)
        flavour = _match(group[0].package)["flavour"]
        chosen += {group[0], group[-1]} if flavour.startswith("cloud-") else {group[-1]}
    return chosen


def _age(kernel: DebianKernel) -> tuple[list[int], str]:
    """A key to sort packages by version with, then name; 7.3~rc7 is before 7.3.4."""
    return [int(number) for number in re.findall(r"\d+", kernel.version.replace("~rc", ".0."))], kernel.package


def _source(family: str, versions: list[str], *, download: bool) -> tuple[str, bool] | None:
    """The newest source of an upstream version that is to be had: (its name, whether it has the callback).

    Of the package linux-source-*, which Debian has for what it releases; else of a source package. What was looked
    through before is not fetched again.
    """
    known = cache_folder() / "sources-with-callback.json"
    seen = msgspec.json.decode(known.read_bytes(), type=dict[str, bool]) if known.exists() else {}
    for name, read in [
        *((f"linux-source-{family} {version}", _packaged) for version in versions),
        *((f"linux {version}", _upstream_and_patches) for version in versions),
    ]:
        try:
            if name not in seen:
                if not download:
                    continue
                code = read(*name.split())
                assert "void vp_del_vqs(" in code, name
                seen[name] = CALLBACK in code
                known.write_bytes(msgspec.json.encode(seen))
        except Missing:
            continue  # not every suite's sources are asked for, and mirrors lag behind
        return name, seen[name]
    return None


def _packaged(package: str, version: str) -> str:
    """The code of drivers/virtio in a linux-source-* package."""
    deb = fetch(package, version=version, everywhere=True)
    command: list[str | Path] = ["tar", "xO", f"./usr/src/{package}.tar.xz"]
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as outer,
        subprocess.Popen(command, stdin=outer.stdout, stdout=subprocess.PIPE) as inner,
    ):
        unpack = ["tar", "xJO", "--wildcards", f"{package}/drivers/virtio/*.[ch]"]
        return subprocess.run(unpack, stdin=inner.stdout, check=True, capture_output=True, text=True).stdout


def _upstream_and_patches(package: str, version: str) -> str:
    """The code of drivers/virtio in a source package, and Debian's patches."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        code = ""
        for archive in fetch_source(package, version, Path(folder)):
            wanted = "debian/patches/*" if ".debian." in archive.name else "*/drivers/virtio/*.[ch]"
            unpack: list[str | Path] = ["tar", "xOf", archive, "--wildcards", wanted]
            code += subprocess.run(unpack, check=True, capture_output=True, text=True, errors="replace").stdout
        return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew the list."""
    parser = argparse.ArgumentParser(prog="debian_kernels", description=__doc__)
    parser.add_argument("--sources", action="store_true", help="look through the sources as well (a gigabyte or two)")
    options = parser.parse_args(arguments)
    kernels = sorted(_on_offer(), key=_age, reverse=True)
    clean, looked = set[str](), list[str]()
    for family in dict.fromkeys(kernel.family for kernel in kernels):
        if INTRODUCED <= tuple(map(int, family.split("."))) < REMOVED:
            continue
        versions = list(dict.fromkeys(kernel.version for kernel in kernels if kernel.family == family))
        found = _source(family, versions, download=options.sources)
        if found is not None:
            name, called = found
            print(f"{family}: {name} has {'' if called else 'no '}{CALLBACK}", flush=True)
            if called:
                continue
            looked.insert(0, name)
        clean.add(family)
    chosen = sorted(_chosen([kernel for kernel in kernels if kernel.family in clean]), key=_age)
    lines = [" ".join(msgspec.structs.astuple(kernel)) for kernel in chosen]
    LIST.write_text(HEADER + "".join(f"#   {name}\n" for name in looked) + "\n".join(lines) + "\n")
    print(f"{len(chosen)} of {len(kernels)} on offer are listed in {LIST.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
