# SPDX-License-Identifier: GPL-2.0-or-later
"""virtio_pci.ko with the callback put back, for a Debian 6.1 kernel: built in seconds, loaded by the stock kernel.

    faulty_module("6.1.0-50-cloud-amd64")                      the module as v6.8 had it
    faulty_module("6.1.0-50-cloud-amd64", variant="fixed")     as c8fae27d141a repaired it
    Module(release="6.1.0-50-arm64", opt="Os", btf=False).path()

6.12's headers serve too, though its virtio_pci is built in and the module can only be looked at.
"""

import lzma
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import msgspec

from corpus import compilers
from corpus.archive import cache_folder, fetch, locked
from corpus.builds import Manifest, Opt, build_once, run_logged
from corpus.carve import btf_of_package
from corpus.compilers import Compiler
from corpus.patches import VARIANTS, apply
from corpus.traps import TRAPS
from corpus.trees import architecture_of, headers, source, source_version

__all__ = ["DEFAULT_RELEASE", "Module", "faulty_module", "vmlinux_btf"]

DEFAULT_RELEASE = "6.1.0-50-cloud-amd64"

KNOWN = {**VARIANTS, **TRAPS}
# What kernels are built with beyond the usual; the flags are those of scripts/Makefile.kasan, Makefile.kmsan and
# arch/arm64/Makefile.
HARDENINGS = {
    "scs": "-fsanitize=shadow-call-stack -ffixed-x18",
    "kasan": "-fsanitize=kernel-address -fasan-shadow-offset=0xdffffc0000000000 --param=asan-stack=1 "
    "--param=asan-globals=1 --param=asan-instrumentation-with-call-threshold=10000 "
    "--param=asan-instrument-allocas=1",
    "kasan-clang": "-fsanitize=kernel-address -mllvm -asan-mapping-offset=0xdffffc0000000000 -mllvm -asan-stack=1 "
    "-mllvm -asan-globals=1 -mllvm -asan-instrumentation-with-call-threshold=10000",
    "kasan-arm64": "-fsanitize=kernel-address -fasan-shadow-offset=0xdfff800000000000 --param=asan-stack=1 "
    "--param=asan-globals=1 --param=asan-instrumentation-with-call-threshold=10000",
    "sw-tags": "-fsanitize=kernel-hwaddress -mllvm -hwasan-mapping-offset=0xefff800000000000 "
    "-mllvm -hwasan-instrument-stack=0 -mllvm -hwasan-use-short-granules=0 -mllvm -hwasan-inline-all-checks=1",
    "kmsan": "-fsanitize=kernel-memory -mllvm -msan-disable-checks=1",
    "kcsan": "-fsanitize=thread -fno-optimize-sibling-calls",
    "kcov": "-fsanitize-coverage=trace-pc",
    "kcfi": "-fsanitize=kcfi",
    "o3": "-O3",
    # On arm64 only: objtool, which x86-64 needs, reads no bitcode.
    "lto": "-flto -fvisibility=hidden",
    "thin-lto": "-flto=thin -fsplit-lto-unit -fvisibility=hidden",
    "gcov": "-fprofile-arcs -ftest-coverage -fno-tree-loop-im",
    "gcov-clang": "-fprofile-arcs -ftest-coverage",
    # clang's own: structures of nothing but pointers to functions are shuffled, and those that are marked.
    "randstruct": "-DRANDSTRUCT -frandomize-layout-seed=ejectable",
    "kcfi-ibt": "-fsanitize=kcfi -fcf-protection=branch",
    # No flag goes with it: what these options of a kernel change in a module comes from the headers alone.
    "hw-tags": "-DCONFIG_KASAN=1 -DCONFIG_KASAN_HW_TAGS=1",
    "no-ftrace": "",
}
MAKEFILE = """
obj-m := virtio_pci.o
virtio_pci-y := virtio_pci_modern.o virtio_pci_common.o {legacy}
ccflags-y += {flags}
ccflags-remove-y += {without}
"""
# Drops what gcc understands and clang does not, among the options that gcc-configured headers give.
WRAPPER = """#!/bin/sh
for word; do
	shift
	case $word in
	-Wp,*|-Wa,*) set -- "$@" "$word" ;;
	-W*|-fconserve-stack|-fno-allow-store-data-races|-mrecord-mcount|-mindirect-branch*|-mfunction-return*) ;;
	-mpreferred-stack-boundary=*|-falign-jumps=*|-falign-loops=*|-fplugin*|-mskip-rax-setup|-mharden-sls=*) ;;
	-fno-var-tracking*|-fmin-function-alignment=*|-ftrivial-auto-var-init=zero|-mabi=lp64) ;;
	*) set -- "$@" "$word" ;;
	esac
done
exec {clang} {target} -w -Qunused-arguments {flags} "$@"
"""


# The same for gcc-11, among the options that headers of gcc-12's give.
OLDER_GCC = """#!/bin/sh
for word; do
	shift
	case $word in
	-ftrivial-auto-var-init=zero) ;;
	*) set -- "$@" "$word" ;;
	esac
done
exec {gcc} "$@"
"""


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """Which module to build; `name` says it in one word."""

    release: str = DEFAULT_RELEASE
    variant: str = "affected"
    compiler: Compiler = "gcc-12"
    opt: Opt = "O2"
    btf: bool = True  # split BTF over the kernel's, as Debian ships it
    retpoline: bool = True
    debug: bool = False  # keep the DWARF
    legacy: bool = True  # with the legacy driver in it
    compression: Literal["none", "xz", "zst", "gz"] = "none"
    hardening: str = ""  # a name of HARDENINGS

    @property
    def name(self) -> str:
        """The name of the build's folder."""
        options = {
            self.compiler: self.compiler not in {"gcc-12", "clang-16"},
            "clang": self.compiler == "clang-16",
            "os": self.opt == "Os",
            "nobtf": not self.btf,
            "noretpoline": not self.retpoline,
            "debug": self.debug,
            "nolegacy": not self.legacy,
            self.hardening: bool(self.hardening),
            self.compression: self.compression != "none",
        }
        return "-".join(["module", self.release, self.variant, *(word for word, chosen in options.items() if chosen)])

    @property
    def family(self) -> str:
        """Of the source package: "6.1" or "6.12"."""
        return "6.12" if self.release.startswith("6.12") else "6.1"

    @property
    def arm(self) -> bool:
        """Whether it is for arm64."""
        return architecture_of(self.release) == "arm64"

    def path(self) -> Path:
        """The module's file, made on first use; raises `Missing` when a package or compiler is not to be had."""
        return build_once(self.name, self._recipe)

    def _recipe(self, aside: Path) -> Manifest:
        if self.compression != "none":
            plain = msgspec.structs.replace(self, compression="none").path()
            artefact = _compress(plain, aside, self.compression)
        else:
            artefact = _build(aside, self)
        return Manifest(
            name=self.name,
            artefact=artefact.name,
            expected=KNOWN[self.variant].expected if self.legacy else "not_affected",
            variant=self.variant,
            arch="arm64" if self.arm else "amd64",
            source=source_version(self.family),
            release=self.release,
            compiler=self.compiler,
            opt=self.opt,
            btf=self.btf,
            debug=self.debug,
            retpoline=self.retpoline and not self.arm,
            virtio_pci="module",
            compression=self.compression,
            notes=(f"{self.hardening}: " if self.hardening else "")
            + KNOWN[self.variant].what
            + ("" if self.legacy else "; without the legacy driver"),
        )


def faulty_module(release: str = DEFAULT_RELEASE, variant: str = "affected") -> Path:
    """The path of virtio_pci.ko for the kernel `release`, made on first use; see `Module` for all the choices.

    Raises `Missing` when a package or a compiler is not to be had.
    """
    return Module(release=release, variant=variant).path()


def _build(aside: Path, module: Module) -> Path:
    arm = module.arm
    log = cache_folder() / "logs" / f"{module.name}.log"
    log.unlink(missing_ok=True)
    tree = headers(module.release)
    work = aside / "work"
    work.mkdir()
    for file in (source(module.family) / "drivers/virtio").glob("virtio_pci_*.[ch]"):
        shutil.copy(file, work)
    apply(work, module.family, module.variant, KNOWN)
    clang = module.compiler.startswith("clang")
    flags = [f"-{module.opt}"] if module.opt != "O2" else []
    flags += HARDENINGS[module.hardening].split() if module.hardening else []
    if not module.retpoline and not arm and not clang:
        flags += ["-mindirect-branch=keep", "-mfunction-return=keep"]
    if not module.legacy:
        for file in work.glob("*.h"):
            # The options' header is included first on the command line: -U comes too early, so undo it in the source.
            file.write_text(
                "#undef CONFIG_VIRTIO_PCI_LEGACY\n#undef CONFIG_VIRTIO_PCI_LEGACY_MODULE\n" + file.read_text()
            )
    (work / "Makefile").write_text(
        MAKEFILE.format(
            legacy="virtio_pci_legacy.o" if module.legacy else "",
            flags=" ".join(flags),
            without="$(CC_FLAGS_FTRACE)" if module.hardening == "no-ftrace" else "",
        )
    )
    command: list[str | Path] = ["make", "-C", tree, f"M={work}", "modules"]
    if module.hardening:
        if module.hardening.endswith("lto"):
            command.append(f"LD={compilers.linker(module.compiler)}")
        command.append("KBUILD_MODPOST_WARN=1")  # these headers' kernel has no sanitizer to call
    if arm:
        command += ["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]
    if clang:
        wrapper = work / "clang-wrapper"
        thunks = "-mretpoline-external-thunk" if module.retpoline else ""
        if module.retpoline and module.compiler != "clang-14":  # which cannot return through a thunk
            thunks += " -mfunction-return=thunk-extern"
        wrapper.write_text(
            WRAPPER.format(
                clang=compilers.command(module.compiler),
                target="--target=aarch64-linux-gnu" if arm else "--target=x86_64-linux-gnu",
                flags="" if arm else thunks,
            )
        )
        wrapper.chmod(0o755)
        command.append(f"CC={wrapper}")
    elif module.compiler == "gcc-11":
        wrapper = work / "gcc-wrapper"
        wrapper.write_text(
            OLDER_GCC.format(gcc=compilers.command(module.compiler, "aarch64-linux-gnu-" if arm else ""))
        )
        wrapper.chmod(0o755)
        command.append(f"CC={wrapper}")
    else:
        command.append(f"CC={compilers.command(module.compiler, 'aarch64-linux-gnu-' if arm else '')}")
    run_logged(command, log)
    made = work / "virtio_pci.ko"
    tool = "aarch64-linux-gnu-" if arm else ""
    if module.btf:
        run_logged(
            ["pahole", "-J", "--btf_base", vmlinux_btf(module.release), made],
            log,
            env={"LLVM_OBJCOPY": f"{tool}objcopy"},
        )
    if not module.debug:
        run_logged([f"{tool}strip", "--strip-debug", made], log)
    done = made.rename(aside / "virtio_pci.ko")
    shutil.rmtree(work)
    return done


def _compress(plain: Path, aside: Path, compression: str) -> Path:
    target = aside / f"{plain.name}.{compression}"
    if compression == "xz":
        # As the kernel's modules_install does: its own decompressor knows only CRC32.
        target.write_bytes(lzma.compress(plain.read_bytes(), check=lzma.CHECK_CRC32))
        return target
    tool = {"gz": ["gzip", "-n", "-9", "-c"], "zst": ["zstd", "-q", "-c"]}[compression]
    with target.open("wb") as output:
        subprocess.run([*tool, plain], check=True, stdout=output)
    return target


def vmlinux_btf(release: str) -> Path:
    """The BTF of Debian's kernel `release`, raw, carved out of the shipped image: modules' BTF is split over it."""
    target = cache_folder() / "btf" / f"{release}.btf"
    with locked(f"btf-{release}"):
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            aside = target.with_suffix(".part")
            aside.write_bytes(btf_of_package(fetch(f"linux-image-{release}", architecture_of(release))))
            aside.rename(target)
    return target
