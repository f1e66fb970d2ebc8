# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel that runs, as it describes itself: release, build-ids, command line, live patches, what guards it."""

import re
import struct

import msgspec

from ejectable.host.root import Root
from ejectable.model import Doubt, DoubtKind

__all__ = ["PatchedFunction", "Running", "build_id", "oopsed", "read_running"]

NT_GNU_BUILD_ID = 3  # include/uapi/linux/elf.h
LIVE_PATCHES = "/sys/kernel/livepatch"
MAX_PATCHES, MAX_PATCHED = 64, 4096
TAINT_DIE = 1 << 7
MOST_MODULES = 1024


class PatchedFunction(msgspec.Struct, frozen=True):
    """A function that an enabled live patch replaces."""

    patch: str  # kpatch-1
    object: str  # virtio_pci, vmlinux
    function: str
    in_transition: bool = False  # tasks are there that still run what it replaces, or run it already

    def __str__(self) -> str:
        return f"{self.patch}: {self.object}/{self.function}"


class Running(msgspec.Struct, frozen=True):
    """What the running kernel says of itself; `None` is not known."""

    release: str | None
    banner: str | None
    arch: str | None
    build_id: str | None  # lower-case hex, of vmlinux
    modules: dict[str, str | None]  # those that are loaded, each with its build-id where it shows one
    command_line: str | None
    lockdown: str | None  # none, integrity, confidentiality
    force_legacy: bool | None  # the parameter as the kernel has it now
    patched: tuple[PatchedFunction, ...] = ()
    has_memory: bool = False  # /proc/kcore is there; root may read it
    doubts: tuple[Doubt, ...] = ()  # what was not seen of the kernel that runs


def read_running(root: Root) -> Running | None:
    """The running kernel, or `None` where nothing shows that any runs: a mounted image.

    A tree that holds devices, or the files of /proc without their content, was captured from a machine that ran.
    """
    release = root.text("/proc/sys/kernel/osrelease", 256)
    banner = root.text("/proc/version", 4096)
    if not release and banner:
        match = re.match(r"Linux version (\S+)", banner)
        release = match[1] if match else None
    notes = root.read("/sys/kernel/notes", 65536)
    doubts = []
    if not release and not banner:
        if banner is None and notes is None and not root.list("/sys/bus") and "/proc/version" not in root.denied:
            return None
        doubts.append(_nameless(root, banner))
    patched, more = _live_patches(root)
    return Running(
        release=release or None,
        banner=banner or None,
        arch=_arch(root, banner or ""),
        build_id=build_id(notes or b""),
        modules=_modules(root),
        command_line=root.text("/proc/cmdline", 65536),
        lockdown=_chosen(root.text("/sys/kernel/security/lockdown", 256)),
        force_legacy=_boolean(root.text("/sys/module/virtio_pci/parameters/force_legacy", 16)),
        patched=patched,
        has_memory=root.file("/proc/kcore") is not None,
        doubts=(*doubts, *more),
    )


def _modules(root: Root) -> dict[str, str | None]:
    """The modules that are loaded: by /proc/modules, or those that sysfs shows with notes of their own."""
    listed = re.findall(r"^(\w+) ", root.text("/proc/modules", 1 << 20) or "", re.MULTILINE)
    found = {}
    for name in (listed or root.list("/sys/module") or ())[:MOST_MODULES]:
        of_module = build_id(root.read(f"/sys/module/{name}/notes/.note.gnu.build-id", 4096) or b"")
        if listed or of_module:
            found[name] = of_module
    return found


def oopsed(root: Root) -> bool:
    """Whether this kernel has had an Oops: taint D (Documentation/admin-guide/tainted-kernels.rst)."""
    return bool((root.number("/proc/sys/kernel/tainted") or 0) & TAINT_DIE)


def _nameless(root: Root, banner: str | None) -> Doubt:
    """Why /proc/version does not say which kernel runs."""
    if "/proc/version" in root.denied:
        return Doubt(DoubtKind.PERMISSION, "/proc/version", "/proc/version may not be read by this user.")
    if banner is None:
        detail = "There is no /proc/version: nothing shows which kernel ran. Capture /proc too."
        return Doubt(DoubtKind.MISSING, "/proc/version", detail)
    # stat(2) gives 0 for the length of a file in /proc, and tar believes it.
    detail = "/proc/version is empty, as tar saves the files of /proc. Capture them with `cp -a`, which reads them."
    return Doubt(DoubtKind.CUT_OFF, "/proc/version", detail)


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


def _live_patches(root: Root) -> tuple[tuple[PatchedFunction, ...], tuple[Doubt, ...]]:
    """What enabled live patches replace: /sys/kernel/livepatch/PATCH/OBJECT/FUNCTION,N (Documentation/livepatch)."""
    found: list[PatchedFunction] = []
    doubts: list[Doubt] = []
    patches = root.list(LIVE_PATCHES)
    if patches is None and LIVE_PATCHES in root.denied:
        doubts.append(Doubt(DoubtKind.PERMISSION, LIVE_PATCHES, f"{LIVE_PATCHES} may not be read by this user."))
    for patch in (patches or ())[:MAX_PATCHES]:
        folder = f"{LIVE_PATCHES}/{patch}"
        transition = root.text(f"{folder}/transition", 16) not in (None, "0")
        if root.text(f"{folder}/enabled", 16) == "0" and not transition:
            continue
        for unit in root.list(folder) or ():
            if root.is_dir(f"{folder}/{unit}"):
                functions = root.list(f"{folder}/{unit}") or ()
                found += [PatchedFunction(patch, unit, name.partition(",")[0], transition) for name in functions]
    if len(patches or ()) > MAX_PATCHES or len(found) > MAX_PATCHED:
        detail = f"More than {MAX_PATCHES} live patches or {MAX_PATCHED} functions are replaced: not all were read."
        doubts.append(Doubt(DoubtKind.BOUND, LIVE_PATCHES, detail))
    return tuple(found[:MAX_PATCHED]), tuple(doubts)


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
