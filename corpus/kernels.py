# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole small kernels from Debian's kernel sources, with virtio_pci built in and the callback put back.

They boot in QEMU with a serial console and an initramfs, know PCI, ACPI hotplug and every virtio driver that matters,
and little else. Each `Config` has a tree and an object folder of its own in the cache, so that another variant
compiles drivers/virtio only and links again, and another compression makes the boot image only.

    Kernel(config="amd64-gcc", variant="affected").path()      bzImage
    Kernel(config="arm64-gcc", variant="fixed", form="vmlinuz.efi", compression="zstd").path()
"""

import shutil
from pathlib import Path
from typing import Literal

import msgspec

from corpus.archive import cache_folder, locked
from corpus.builds import Manifest, Opt, build_once, built, run_logged
from corpus.compilers import Compiler, command, llvm_suffix
from corpus.patches import VARIANTS, apply
from corpus.trees import source, source_version

__all__ = ["CONFIGS", "Config", "Form", "Kernel", "Payload", "build_tree", "crash_test_kernel", "small_kernel"]

# What `make allnoconfig` starts from: everything that is not named is off. The small set boots from an initramfs,
# drives a virtio disk and hot-unplugs it; the full set adds ACPI, networking, every virtio driver and suspend.
SMALL = """
SMP PRINTK PRINTK_TIME TTY SHMEM BLK_DEV_INITRD RD_GZIP BINFMT_ELF BINFMT_SCRIPT MULTIUSER POSIX_TIMERS FUTEX EXPERT
EPOLL FILE_LOCKING BUG HIGH_RES_TIMERS PROC_FS PROC_SYSCTL SYSFS TMPFS DEVTMPFS DEVTMPFS_MOUNT BLOCK MODULES
MODULE_UNLOAD KALLSYMS KALLSYMS_ALL MAGIC_SYSRQ PCI PCI_MSI PCIEPORTBUS HOTPLUG_PCI HOTPLUG_PCI_PCIE
VIRTIO_MENU VIRTIO_PCI VIRTIO_PCI_LEGACY VIRTIO_BALLOON BLK_DEV VIRTIO_BLK VIRTIO_CONSOLE
STACKPROTECTOR STACKPROTECTOR_STRONG DEBUG_KERNEL DEBUG_BUGVERBOSE
"""
FULL = """
RD_ZSTD SIGNALFD TIMERFD EVENTFD ADVISE_SYSCALLS MEMBARRIER NO_HZ_IDLE SYSVIPC DEVMEM IKCONFIG IKCONFIG_PROC
NET UNIX INET PACKET NETDEVICES NET_CORE HOTPLUG_PCI_SHPC ACPI HOTPLUG_PCI_ACPI PM SUSPEND VIRTIO_INPUT VIRTIO_NET
HW_RANDOM HW_RANDOM_VIRTIO SCSI BLK_DEV_SD SCSI_LOWLEVEL SCSI_VIRTIO VSOCKETS VIRTIO_VSOCKETS INPUT LIST_HARDENED
FRAME_WARN=2048
"""
# What a driver of each kind of virtio device needs.
DEVICES = """
NET UNIX INET PACKET NETDEVICES NET_CORE VIRTIO_NET HW_RANDOM HW_RANDOM_VIRTIO SCSI BLK_DEV_SD SCSI_LOWLEVEL SCSI_VIRTIO
"""
AMD64 = """
64BIT SERIAL_8250 SERIAL_8250_CONSOLE HYPERVISOR_GUEST PARAVIRT KVM_GUEST RELOCATABLE RANDOMIZE_BASE
X86_LOCAL_APIC X86_IO_APIC X86_MPPARSE X86_X2APIC HPET_TIMER RTC_CLASS RTC_DRV_CMOS UNWINDER_ORC CPU_MITIGATIONS
"""
ARM64 = """
SERIAL_AMBA_PL011 SERIAL_AMBA_PL011_CONSOLE EFI EFI_STUB PCI_HOST_GENERIC ARM_GIC_V3 RELOCATABLE RANDOMIZE_BASE
ARM64_4K_PAGES ARM64_BTI_KERNEL ARM64_PTR_AUTH ARM64_PTR_AUTH_KERNEL
"""
RETPOLINE = "RETPOLINE RETHUNK MITIGATION_RETPOLINE MITIGATION_RETHUNK"
BTF = "DEBUG_INFO_DWARF5 BPF BPF_SYSCALL DEBUG_INFO_BTF PAHOLE_HAS_SPLIT_BTF"
DWARF = "DEBUG_INFO_DWARF5"
TRACE = "FTRACE FUNCTION_TRACER DYNAMIC_FTRACE KPROBES"
# The kernel's own crash tests, and what notices the crashes that are no exception.
CRASH_TESTS = """
DEBUG_FS RUNTIME_TESTING_MENU LKDTM DETECT_HUNG_TASK SOFTLOCKUP_DETECTOR HARDLOCKUP_DETECTOR WQ_WATCHDOG DEBUG_LIST
HARDENED_USERCOPY FORTIFY_SOURCE PANIC_TIMEOUT=0 PSTORE PSTORE_CONSOLE PSTORE_RAM VMAP_STACK DEBUG_ATOMIC_SLEEP
SCHED_STACK_END_CHECK
"""
# What notices a module's mistakes at once.
WATCHFUL = """
KASAN KASAN_GENERIC KASAN_OUTLINE PROVE_LOCKING DEBUG_ATOMIC_SLEEP DEBUG_LIST DEBUG_OBJECTS DEBUG_OBJECTS_WORK
SLUB_DEBUG DEBUG_FS KPROBES PCIEASPM
"""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration: what is compiled once."""

    name: str
    family: Literal["6.1", "6.12"] = "6.12"
    arch: Literal["amd64", "arm64"]
    compiler: Compiler
    opt: Opt = "O2"
    btf: bool = True
    debug: bool = False
    retpoline: bool = True
    extra: str = ""
    notes: str = ""

    def options(self) -> str:
        """The answers for allnoconfig, a line each."""
        words = [SMALL, AMD64 if self.arch == "amd64" else ARM64, self.extra]
        if self.arch == "amd64" and self.retpoline:
            words.append(RETPOLINE)
        if self.btf:
            words.append(BTF)
        elif self.debug:
            words.append(DWARF)
        words.append("CC_OPTIMIZE_FOR_PERFORMANCE" if self.opt == "O2" else "CC_OPTIMIZE_FOR_SIZE")
        chosen = dict.fromkeys(" ".join(words).split())
        lines = [f"CONFIG_{word}" if "=" in word else f"CONFIG_{word}=y" for word in chosen]
        return "\n".join([*lines, f'CONFIG_LOCALVERSION="-ejectable-{self.name}"', ""])

    def make(self) -> list[str]:
        """The make command for this compiler and architecture, without its targets."""
        words = ["make", "-j2", "ARCH=arm64" if self.arch == "arm64" else "ARCH=x86_64"]
        if self.compiler == "clang-16":
            return [*words, f"LLVM={llvm_suffix()}", "LLVM_IAS=1"]
        if self.arch == "arm64":
            cross = "aarch64-linux-gnu-"
            return [*words, f"CROSS_COMPILE={cross}", f"CC={command('gcc-12', cross)}"]
        return [*words, f"CC={command('gcc-12')}"]


CONFIGS = {
    config.name: config
    for config in (
        # First the one that the other rooms wait for; it carries the crash tests too.
        Config(
            name="amd64-gcc",
            arch="amd64",
            compiler="gcc-12",
            extra=f"{FULL} {CRASH_TESTS} {TRACE}",
            notes="with LKDTM and debugfs",
        ),
        Config(name="arm64-gcc", arch="arm64", compiler="gcc-12", extra="EFI_ZBOOT KPROBES"),
        Config(
            name="amd64-clang-kcfi",
            arch="amd64",
            compiler="clang-16",
            extra=f"{DEVICES} CFI_CLANG X86_KERNEL_IBT KPROBES",
            notes="kCFI and IBT",
        ),
        # BTI needs clang: "depends on !CC_IS_GCC" (arch/arm64/Kconfig, ARM64_BTI_KERNEL).
        Config(
            name="arm64-clang-kcfi",
            arch="arm64",
            compiler="clang-16",
            extra=f"{DEVICES} CFI_CLANG SHADOW_CALL_STACK KPROBES",
            notes="kCFI, shadow call stack, BTI and pointer authentication",
        ),
        Config(name="amd64-gcc-os", arch="amd64", compiler="gcc-12", opt="Os", btf=False, retpoline=False),
        Config(name="amd64-6.1-gcc", family="6.1", arch="amd64", compiler="gcc-12"),
        # 6.12 packs vmlinuz.efi with gzip or zstd only; 6.1 knows the others too.
        Config(name="arm64-6.1-gcc", family="6.1", arch="arm64", compiler="gcc-12", btf=False, extra="EFI_ZBOOT"),
        Config(name="arm64-clang-os", arch="arm64", compiler="clang-16", opt="Os", btf=False),
        Config(
            name="amd64-clang-lto",
            arch="amd64",
            compiler="clang-16",
            btf=False,
            debug=False,
            extra="LTO_CLANG LTO_CLANG_THIN",
            notes="ThinLTO",
        ),
        Config(
            name="amd64-kasan",
            family="6.1",
            arch="amd64",
            compiler="gcc-12",
            extra=f"{FULL} {WATCHFUL}",
            notes="KASAN and lockdep",
        ),
    )
}
FORMS = {"amd64": "bzImage", "arm64": "Image"}
PACKERS = {
    "gzip": "GZIP",
    "bzip2": "BZIP2",
    "lzma": "LZMA",
    "xz": "XZ",
    "lzo": "LZO",
    "lz4": "LZ4",
    "zstd": "ZSTD",
}
Form = Literal[
    "",
    "bzImage",
    "Image",
    "Image.gz",
    "Image.bz2",
    "Image.lzma",
    "Image.lzo",
    "Image.lz4",
    "Image.xz",
    "Image.zst",
    "vmlinuz.efi",
    "vmlinux",
]
Payload = Literal["", "gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd"]


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel: a configuration, a variant of the edit, a form and, for bzImage and vmlinuz.efi, a compression."""

    config: str = "amd64-gcc"
    variant: str = "affected"
    form: Form = ""  # bzImage for amd64, Image for arm64
    legacy: bool = True  # with the legacy driver in it
    compression: Payload = ""

    @property
    def name(self) -> str:
        """The name of the build's folder."""
        return "-".join(
            filter(
                None,
                ["kernel", self.config, self.variant, self.form, self.compression, "" if self.legacy else "nolegacy"],
            )
        )

    def path(self) -> Path:
        """The kernel's file, made on first use; raises `Missing` when a package or compiler is not to be had."""
        return build_once(self.name, self._recipe)

    def _recipe(self, aside: Path) -> Manifest:
        config = CONFIGS[self.config]
        form = self.form or FORMS[config.arch]
        with locked(f"config-{config.name}"):
            artefact, release = _make(self, config, form, aside)
        compressed = form in {"bzImage", "vmlinuz.efi"}
        return Manifest(
            name=self.name,
            artefact=artefact.name,
            expected=VARIANTS[self.variant].expected if self.legacy else "not_affected",
            variant=self.variant,
            arch=config.arch,
            source=source_version(config.family),
            release=release,
            compiler=config.compiler,
            opt=config.opt,
            btf=config.btf,
            debug=form == "vmlinux" and (config.btf or config.debug),
            retpoline=config.retpoline and config.arch == "amd64",
            virtio_pci="builtin",
            compression=(self.compression or "gzip") if compressed else (form.partition(".")[2] or "none"),
            form=form,
            notes=", ".join(filter(None, [config.notes, VARIANTS[self.variant].what])),
        )


def small_kernel(variant: str = "affected", config: str = "amd64-gcc") -> Path:
    """The bzImage (amd64) or Image (arm64) of a small kernel with virtio_pci built in; see `Kernel` for the choices."""
    return Kernel(config=config, variant=variant).path()


def build_tree(config: str = "amd64-gcc") -> Path:
    """The folder to build a module for a small kernel in (`make -C` it); the kernel is made first where it is not."""
    tree = cache_folder() / "obj" / config / "obj"
    if not (tree / "Module.symvers").exists():
        small_kernel(config=config)
        with locked(f"config-{config}"):
            # `modules` writes Module.symvers; the image alone does not.
            make = [*CONFIGS[config].make(), "-C", str(tree.with_name("tree")), f"O={tree}"]
            run_logged([*make, "modules"], cache_folder() / "logs" / f"modules-{config}.log")
    return tree


def crash_test_kernel() -> Path:
    """A stock amd64 kernel with LKDTM (/sys/kernel/debug/provoke-crash/DIRECT), for crash logs that are real."""
    kernel = Kernel(variant="stock").path()
    link = built() / "lkdtm-amd64"
    if not link.exists():
        link.symlink_to(kernel.parent.name)
    return link / kernel.name


def _make(kernel: Kernel, config: Config, form: str, aside: Path) -> tuple[Path, str]:
    log = cache_folder() / "logs" / f"{kernel.name}.log"
    log.unlink(missing_ok=True)
    base = cache_folder() / "obj" / config.name
    tree, objects = base / "tree", base / "obj"
    make = [*config.make(), "-C", str(tree), f"O={objects}"]
    if not tree.exists():
        # Hard links: a tree of its own costs the directories only. Edited files are unlinked first.
        shutil.rmtree(base, ignore_errors=True)
        objects.mkdir(parents=True)
        run_logged(["cp", "-al", source(config.family), base / "tree.part"], log)
        (base / "tree.part").rename(tree)
    _edit(tree / "drivers/virtio", config.family, kernel.variant)
    answers = base / "answers"
    wanted = config.options()
    if not (objects / ".config").exists() or answers.read_text() != wanted:
        answers.write_text(wanted)
        run_logged([*make, f"KCONFIG_ALLCONFIG={answers}", "allnoconfig"], log)
    choice = PACKERS[kernel.compression or "gzip"]
    switches = [word for name in PACKERS.values() if name != choice for word in ("-d", f"KERNEL_{name}")]
    switches += ["-e", f"KERNEL_{choice}", "-e" if kernel.legacy else "-d", "VIRTIO_PCI_LEGACY"]
    run_logged([tree / "scripts/config", "--file", objects / ".config", *switches], log)
    run_logged([*make, "olddefconfig"], log)
    run_logged([*make, "vmlinux" if form == "vmlinux" else form], log)
    folder = objects / ("arch/arm64/boot" if config.arch == "arm64" else "arch/x86/boot")
    made = objects / "vmlinux" if form == "vmlinux" else folder / form
    artefact = aside / form
    shutil.copy(made, artefact)
    # Next to each kernel what the build said of it: the reference that readers are compared with.
    shutil.copy(objects / "System.map", aside)
    shutil.copy(objects / ".config", aside / "config")
    return artefact, (objects / "include/config/kernel.release").read_text().strip()


def _edit(folder: Path, family: str, variant: str) -> None:
    """Bring drivers/virtio of a hard-linked tree to the variant; files that need no change keep their time stamp."""
    fresh = folder.with_name("virtio.edited")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source(family) / "drivers/virtio", fresh)
    apply(fresh, family, variant)
    for file in fresh.iterdir():
        target = folder / file.name
        if file.is_file() and file.read_bytes() != target.read_bytes():
            target.unlink()
            shutil.copyfile(file, target)
    shutil.rmtree(fresh)
