# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel that runs, as it describes itself: release, build-ids, command line, live patches, what guards it."""

import re
import struct

import msgspec

from ejectable.host.root import Root

__all__ = ["Running", "build_id", "oopsed", "read_running"]

NT_GNU_BUILD_ID = 3  # include/uapi/linux/elf.h
MAX_PATCHES = 64
LIVE_PATCHES = "/sys/kernel/livepatch"
TAINT_DIE = 1 << 7


class Running(msgspec.Struct, frozen=True):
    """What the running kernel says of itself; `None` is not known."""

    release: str | None
    banner: str | None
    arch: str | None
    build_id: str | None  # lower-case hex, of vmlinux
    module_build_id: str | None  # of virtio_pci, where it is a module that is loaded
    module_loaded: bool  # virtio_pci is listed in /proc/modules
    command_line: str | None
    lockdown: str | None  # none, integrity, confidentiality
    force_legacy: bool | None  # the parameter as the kernel has it now
    patched: tuple[str, ...] = ()  # functions that an enabled live patch replaces: "kpatch-1: virtio_pci/vp_del_vqs"
    has_memory: bool = False  # /proc/kcore is there; root may read it
    in_transition: tuple[str, ...] = ()  # live patches that some threads run with and others still without


def read_running(root: Root) -> Running | None:
    """The running kernel, or `None` where /proc shows none: a mounted image."""
    release = root.text("/proc/sys/kernel/osrelease", 256)
    banner = root.text("/proc/version", 4096)
    if not release and banner:
        match = re.match(r"Linux version (\S+)", banner)
        release = match[1] if match else None
    notes = root.read("/sys/kernel/notes", 65536)
    if not release and not banner and notes is None:
        return None
    return Running(
        release=release or None,
        banner=banner or None,
        arch=_arch(root, banner or ""),
        build_id=build_id(notes or b""),
        module_build_id=build_id(root.read("/sys/module/virtio_pci/notes/.note.gnu.build-id", 4096) or b""),
        module_loaded=bool(re.search(r"^virtio_pci ", root.text("/proc/modules", 1 << 20) or "", re.MULTILINE)),
        command_line=root.text("/proc/cmdline", 65536),
        lockdown=_chosen(root.text("/sys/kernel/security/lockdown", 256)),
        force_legacy=_boolean(root.text("/sys/module/virtio_pci/parameters/force_legacy", 16)),
        patched=_live_patches(root),
        in_transition=tuple(patch for patch in _patches(root) if _in_transition(root, patch)),
        has_memory=root.file("/proc/kcore") is not None,
    )


def oopsed(root: Root) -> bool:
    """Whether this kernel has had an Oops: taint D (Documentation/admin-guide/tainted-kernels.rst)."""
    return bool((root.number("/proc/sys/kernel/tainted") or 0) & TAINT_DIE)


def build_id(notes: bytes) -> str | None:
    """The GNU build-id among ELF notes, in lower-case hex; `None` if there is none.

    Layout: three 32-bit words (name size, descriptor size, type), then both, each padded to four bytes (elf(5)).
    Kernels that we know are little-endian.
    """
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        data_at = name_at + (name_size + 3) // 4 * 4
        if data_at + size > len(notes):
            return None
        if kind == NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0" and 0 < size <= 64:
            return notes[data_at : data_at + size].hex()
        at = data_at + (size + 3) // 4 * 4
    return None


def _arch(root: Root, banner: str) -> str | None:
    """The machine's word for its processor: /proc/sys/kernel/arch is there since 6.1 (bfca3dd3d068)."""
    found = root.text("/proc/sys/kernel/arch", 64)
    if not found:
        cpu = root.text("/proc/cpuinfo", 65536) or ""
        if re.search(r"^(vendor_id|model name)\s*:", cpu, re.MULTILINE):
            found = "x86_64"
        elif re.search(r"^CPU implementer\s*:", cpu, re.MULTILINE):
            found = "aarch64"
        elif "aarch64" in banner or "x86_64" in banner:
            found = "aarch64" if "aarch64" in banner else "x86_64"
    return found or None


def _live_patches(root: Root) -> tuple[str, ...]:
    """What enabled live patches replace: /sys/kernel/livepatch/PATCH/OBJECT/FUNCTION,N (Documentation/livepatch)."""
    found = []
    for patch in _patches(root):
        # One that is on its way out is switched off at once, and there until its transition is over.
        if root.text(f"{LIVE_PATCHES}/{patch}/enabled", 16) == "0" and not _in_transition(root, patch):
            continue
        for unit in root.list(f"{LIVE_PATCHES}/{patch}") or ():
            if root.is_dir(f"{LIVE_PATCHES}/{patch}/{unit}"):
                functions = root.list(f"{LIVE_PATCHES}/{patch}/{unit}") or ()
                found += [f"{patch}: {unit}/{function.partition(',')[0]}" for function in functions]
    return tuple(found[:4096])


def _patches(root: Root) -> tuple[str, ...]:
    return (root.list(LIVE_PATCHES) or ())[:MAX_PATCHES]


def _in_transition(root: Root, patch: str) -> bool:
    """Documentation/livepatch/livepatch.rst, consistency model: until then each thread runs the old or the new code."""
    return root.text(f"{LIVE_PATCHES}/{patch}/transition", 16) == "1"


def _chosen(text: str | None) -> str | None:
    """The word in brackets: `none [integrity] confidentiality`."""
    match = re.search(r"\[(\w+)\]", text or "")
    return match[1] if match else None


def _boolean(text: str | None) -> bool | None:
    return None if text is None or text[:1] not in tuple("YN10") else text[:1] in "Y1"
