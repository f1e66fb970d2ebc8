# SPDX-License-Identifier: GPL-2.0-or-later
"""The corpus: which kernels are judged, and what is true of each of them.

Debian's own kernels: what is expected comes from their sources, which never had the callback (`debian_kernels`, and the
fact table: it was introduced in v6.8 and redesigned away in v6.11). Built ones: from the edit that made them. Nothing
comes from ejectable.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from corpus.archive import cache_folder, fetch, locked
from corpus.builds import Expected, Opt, built, manifest_of
from corpus.compilers import Compiler
from corpus.debian_kernels import DebianKernel, listed
from corpus.kernels import Form, Kernel, Payload
from corpus.modules import DEFAULT_RELEASE, Module
from corpus.patches import VARIANTS, Family, apply
from corpus.trees import architecture_of, source

__all__ = ["HARDENED", "QUICK", "Entry", "Item", "Stock", "entries", "is_there", "items", "paired_tree"]


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """One of Debian's kernels, judged as the package that it comes in."""

    release: str

    @property
    def name(self) -> str:
        """Of the package."""
        return f"linux-image-{self.release}"

    def path(self) -> Path:
        """The .deb, downloaded on first use."""
        return fetch(self.name, architecture_of(self.release))


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """A built module in a tree of folders, beside the stock kernel that it is for."""

    module: Module

    @property
    def name(self) -> str:
        """The module's, marked."""
        return f"{self.module.name}+kernel"

    def path(self) -> Path:
        """The tree's root: boot/vmlinuz-* and lib/modules/*/kernel/drivers/virtio/virtio_pci.ko."""
        return paired_tree(self.module)


class SourceTree(msgspec.Struct, frozen=True, kw_only=True):
    """The sources that the kernels are built from, as far as the question goes: the C code is what is read."""

    family: Family
    variant: str

    @property
    def name(self) -> str:
        """Says family and variant."""
        return f"source-{self.family}-{self.variant}"

    def path(self) -> Path:
        """The tree's root: its Makefile and Kconfig, drivers/virtio, the headers about virtio."""
        root = cache_folder() / "roots" / self.name
        with locked(f"root-{self.name}"):
            if not root.exists():
                aside = root.with_name(f".{self.name}.part")
                shutil.rmtree(aside, ignore_errors=True)
                whole = source(self.family)
                shutil.copytree(whole / "drivers/virtio", aside / "drivers/virtio")
                for file in [whole / "Makefile", whole / "Kconfig", *whole.glob("include/**/virtio*.h")]:
                    target = aside / file.relative_to(whole)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
                apply(aside / "drivers/virtio", self.family, self.variant)
                aside.rename(root)
        return root


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    path: Path
    expected: Expected
    arch: str
    compiler: str
    opt: str
    btf: bool
    retpoline: bool
    virtio_pci: str
    form: str
    compression: str
    notes: str


# Debian builds its kernels with gcc-12, -O2, BTF; virtio_pci is a module in 6.1 and built in in 6.12 (seen).
STOCK = [
    *(f"6.1.0-{abi}-cloud-amd64" for abi in (47, 48, 50, 52, 54, 56)),
    *(f"6.1.0-{abi}-cloud-arm64" for abi in (44, 46, 50, 53, 56)),
    *(f"6.1.0-{abi}-amd64" for abi in (47, 56)),
    *(f"6.1.0-{abi}-arm64" for abi in (44, 56)),
    *(f"6.1.0-{abi}-rt-amd64" for abi in (50, 56)),
    "6.1.0-56-rt-arm64",
    *(f"6.12.{point}+deb12-cloud-amd64" for point in (100, 107, 111, 113, 115, 117)),
    *(f"6.12.{point}+deb12-cloud-arm64" for point in (100, 111, 117)),
    *(f"6.12.{point}+deb12-amd64" for point in (100, 117)),
    *(f"6.12.{point}+deb12-arm64" for point in (100, 117)),
    "6.12.117+deb12-rt-amd64",
    "6.12.117+deb12-rt-arm64",
    "6.12.117+deb12-arm64-16k",
]
ARM = "6.1.0-50-cloud-arm64"
AMD64_AXES: list[tuple[Compiler, Opt, bool, bool]] = [  # compiler, optimisation, BTF, retpolines
    ("gcc-12", "Os", True, True),
    ("gcc-12", "O2", True, False),
    ("gcc-12", "O2", False, True),
    ("gcc-12", "Os", False, False),
    ("clang-16", "O2", True, True),
    ("clang-16", "Os", False, False),
]
ARM64_AXES: list[tuple[Compiler, Opt, bool]] = [
    ("gcc-12", "Os", True),
    ("gcc-12", "O2", False),
    ("clang-16", "O2", True),
    ("clang-16", "Os", False),
]
HARDENED: list[tuple[str, str, Compiler]] = [  # release, hardening, compiler
    (ARM, "scs", "gcc-12"),
    (ARM, "scs", "clang-16"),
    (DEFAULT_RELEASE, "kasan", "gcc-12"),
    (DEFAULT_RELEASE, "kasan-clang", "clang-16"),
    (ARM, "kasan-arm64", "gcc-12"),
    (ARM, "sw-tags", "clang-16"),
    (DEFAULT_RELEASE, "kmsan", "clang-16"),
    (DEFAULT_RELEASE, "kcsan", "gcc-12"),
    (DEFAULT_RELEASE, "kcov", "gcc-12"),
    (DEFAULT_RELEASE, "kcfi", "clang-16"),
    (ARM, "kcfi", "clang-16"),
    (ARM, "lto", "clang-16"),
    (DEFAULT_RELEASE, "o3", "gcc-12"),
    (ARM, "o3", "gcc-12"),
]
# More kinds of builds, which the corpus alone has: `make test` builds those of HARDENED.
ODD: list[tuple[str, str, Compiler]] = [
    (ARM, "thin-lto", "clang-16"),
    (ARM, "lto", "clang-19"),
    (ARM, "hw-tags", "gcc-12"),
    (DEFAULT_RELEASE, "gcov", "gcc-12"),
    (ARM, "gcov-clang", "clang-16"),
    (DEFAULT_RELEASE, "randstruct", "clang-16"),
    (ARM, "randstruct", "clang-19"),
    (DEFAULT_RELEASE, "no-ftrace", "gcc-12"),
    (ARM, "no-ftrace", "gcc-12"),
    ("6.12.117+deb12-cloud-amd64", "kcfi-ibt", "clang-19"),
    (DEFAULT_RELEASE, "kmsan", "clang-19"),
    (DEFAULT_RELEASE, "kasan", "gcc-11"),
    *((release, "", compiler) for compiler in ("gcc-11", "clang-14", "clang-19") for release in (DEFAULT_RELEASE, ARM)),
]
MODULES = [
    *(Module(variant=variant) for variant, what in VARIANTS.items() if "6.1" in what.families),
    *(Module(release=ARM, variant=variant) for variant, what in VARIANTS.items() if "6.1" in what.families),
    *(
        Module(variant=variant, compiler=compiler, opt=opt, btf=btf, retpoline=retpoline)
        for variant in ("affected", "fixed")
        for compiler, opt, btf, retpoline in AMD64_AXES
    ),
    *(
        Module(release=ARM, variant=variant, compiler=compiler, opt=opt, btf=btf)
        for variant in ("affected", "fixed")
        for compiler, opt, btf in ARM64_AXES
    ),
    *(Module(variant=variant, debug=True, btf=False) for variant in ("affected", "fixed")),
    *(Module(release="6.1.0-56-amd64", variant=variant) for variant in ("affected", "fixed")),
    *(Module(release="6.1.0-56-rt-amd64", variant=variant) for variant in ("affected", "fixed")),
    *(Module(release="6.1.0-56-arm64", variant=variant) for variant in ("affected", "fixed")),
    *(Module(variant="affected", compression=packed) for packed in ("xz", "gz", "zst")),
    *(Module(variant="fixed", compression=packed) for packed in ("xz", "gz", "zst")),
    *(
        Module(release=release, variant=variant, hardening=hardening, compiler=compiler, btf="lto" not in hardening)
        for release, hardening, compiler in [*HARDENED, *ODD]
        for variant in ("affected", "fixed")
    ),
    Module(legacy=False),
    *(Module(release="6.12.117+deb12-cloud-amd64", variant=variant) for variant in ("affected", "fixed", "stock")),
]
PAIRED = [
    Paired(module=Module(release=release, variant=variant))
    for release in (DEFAULT_RELEASE, ARM)
    for variant in ("affected", "fixed", "fixed-legacy-probe", "fixed-is-legacy")
]
SMALL = "amd64-gcc-os"  # the one that is quickest to link again
PAYLOADS: list[Payload] = ["bzip2", "lzma", "xz", "lzo", "lz4", "zstd"]
OLDER_ZBOOT: list[Payload] = ["lzma", "xz", "lzo", "lz4"]
IMAGES: list[Form] = ["Image.gz", "Image.bz2", "Image.lzma", "Image.lzo", "Image.lz4", "Image.xz", "Image.zst"]
KERNELS = [
    *(Kernel(variant=variant) for variant in ("stock", "affected", "fixed", "fixed-legacy-probe")),
    *(Kernel(config="arm64-gcc", variant=variant) for variant in ("affected", "fixed", "stock", "fixed-is-legacy")),
    *(Kernel(config=SMALL, variant=variant) for variant in VARIANTS),
    Kernel(config=SMALL, legacy=False),
    *(Kernel(config=SMALL, compression=packed) for packed in PAYLOADS),
    Kernel(config=SMALL, variant="fixed", compression="zstd"),
    Kernel(variant="affected", form="vmlinux"),
    Kernel(config=SMALL, variant="fixed", form="vmlinux"),
    *(Kernel(config="arm64-gcc", form=form) for form in IMAGES),
    Kernel(config="arm64-gcc", form="vmlinuz.efi", compression="gzip"),
    Kernel(config="arm64-gcc", variant="fixed", form="vmlinuz.efi", compression="zstd"),
    *(Kernel(config="arm64-6.1-gcc", form="vmlinuz.efi", compression=packed) for packed in OLDER_ZBOOT),
    *(
        Kernel(config=config, variant=variant)
        for config in (
            "amd64-clang-kcfi",
            "amd64-6.1-gcc",
            "arm64-6.1-gcc",
            "arm64-clang-os",
            "amd64-clang-lto",
            "amd64-kasan",
        )
        for variant in ("affected", "fixed")
    ),
]
SOURCES = [SourceTree(family=family, variant=variant) for variant, what in VARIANTS.items() for family in what.families]
Item = Stock | DebianKernel | Module | Paired | Kernel | SourceTree
# What `make test` judges: small downloads, modules that are built in seconds.
QUICK: list[Item] = [
    Stock(release="6.1.0-50-cloud-amd64"),
    Stock(release="6.1.0-50-cloud-arm64"),
    Stock(release="6.12.117+deb12-cloud-amd64"),
    *(Module(variant=variant) for variant in ("affected", "fixed", "stock", "affected-first")),
    Module(variant="affected", btf=False, compression="xz"),
    Module(variant="fixed", btf=False),
    *(Paired(module=Module(variant=variant)) for variant in ("affected", "fixed-legacy-probe")),
]


def items() -> list[Item]:
    """Everything, in the order of the table."""
    stock = {item.name: item for item in (Stock(release=release) for release in STOCK)}
    others = [kernel for kernel in listed() if kernel.name not in stock]
    return [*stock.values(), *others, *MODULES, *PAIRED, *KERNELS, *SOURCES]


def is_there(item: Item) -> bool:
    """Whether it was downloaded or built before."""
    if isinstance(item, Stock | DebianKernel):
        return any((cache_folder() / "debs").glob(f"{item.name}_*.deb"))
    if isinstance(item, Paired):
        return is_there(item.module)
    return isinstance(item, SourceTree) or (built() / item.name / "manifest.json").exists()


def entry(item: Item) -> Entry:
    """The line of one item, which is downloaded or built on first use; raises `Missing`."""
    path = item.path()
    if isinstance(item, Stock):
        old = item.release.startswith("6.1.0")
        arch = architecture_of(item.release)
        return Entry(
            name=item.name,
            path=path,
            expected="not_affected",
            arch=arch,
            compiler="gcc-12",
            opt="O2",
            btf=True,
            retpoline=arch == "amd64",
            virtio_pci="module" if old else "builtin",
            form="deb",
            compression="",
            notes="never introduced" if old else "redesigned",
        )
    if isinstance(item, DebianKernel):
        old = item.family in {"5.10", "6.1"}
        return Entry(
            name=item.name,
            path=path,
            expected="not_affected",
            arch=item.architecture,
            compiler=item.compiler,
            opt="O2",
            btf=True,
            retpoline=item.architecture == "amd64",
            virtio_pci="module" if old else "builtin",
            form="deb",
            compression="",
            notes="never introduced" if old else "redesigned",
        )
    if isinstance(item, SourceTree):
        return Entry(
            name=item.name,
            path=path,
            expected=VARIANTS[item.variant].expected,
            arch="",
            compiler="",
            opt="",
            btf=False,
            retpoline=False,
            virtio_pci="source",
            form="source",
            compression="",
            notes=VARIANTS[item.variant].what,
        )
    made = manifest_of(item.module.path().parent if isinstance(item, Paired) else path.parent)
    return Entry(
        name=item.name,
        path=path,
        expected=made.expected,
        arch=made.arch,
        compiler=made.compiler,
        opt=made.opt,
        btf=made.btf,
        retpoline=made.retpoline,
        virtio_pci=made.virtio_pci,
        form="tree" if isinstance(item, Paired) else made.form,
        compression="" if isinstance(item, Paired) else made.compression,
        notes=made.notes,
    )


def paired_tree(module: Module) -> Path:
    """A root folder with the stock kernel that `module` is for, and `module` in place of its virtio_pci."""
    root = cache_folder() / "roots" / module.name
    with locked(f"root-{module.name}"):
        if not root.exists():
            aside = root.with_name(f".{module.name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            folder = aside / "lib/modules" / module.release / "kernel/drivers/virtio"
            folder.mkdir(parents=True)
            shutil.copy(module.path(), folder)
            deb = fetch(f"linux-image-{module.release}", architecture_of(module.release))
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as outer:
                subprocess.run(["tar", "x", "-C", aside, "./boot"], stdin=outer.stdout, check=True)
            if outer.returncode:
                raise RuntimeError(f"{deb} could not be unpacked")
            aside.rename(root)
    return root


def entries(chosen: list[Item]) -> Iterator[Entry | tuple[str, str]]:
    """The line of each item; (name, why) for one that could not be had."""
    from ejectable.errors import EjectableError

    for item in chosen:
        try:
            yield entry(item)
        except EjectableError as error:
            yield item.name, f"{error.message} {error.hint or ''}".strip()
