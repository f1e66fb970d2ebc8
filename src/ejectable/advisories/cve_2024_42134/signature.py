# SPDX-License-Identifier: GPL-2.0-or-later
"""How a crash of CVE-2024-42134 looks, and how its look-alikes differ. Judges the parsed event, never text.

The kernel calls address 0: the callee has no frame of its own, so the first reliable frame is the caller,
`vp_del_vqs`, and below it stands a virtio driver that is being removed or frozen. The callback was added by
fd27ef6b44be ("virtio-pci: Introduce admin virtqueue", v6.8) and is tested first since c8fae27d141a
("virtio-pci: Check if is_avq is NULL", v6.10).

A kernel with kCFI (CONFIG_CFI_CLANG) looks at the callee before it calls it: it reads the hash in front of the
function, some bytes below address 0, and faults on that, in `vp_del_vqs` itself. Seen: address fffffffffffffff1.
Where the processor has IBT such a kernel rewrites itself at boot (FineIBT, CONFIG_FINEIBT): the caller then leaves the
hash in R10 and calls the check that stands 16 bytes in front of the callee, here at fffffffffffffff0.
"""

import re
from collections.abc import Sequence

import msgspec

from ejectable.model import Event, Frame

__all__ = ["ID", "Recognition", "recognise"]

ID = "CVE-2024-42134"

# What takes a virtio device away from its driver, or freezes it. Drivers come and go; these are the names that the
# tree's drivers give their removal and freezing paths.
DRIVER_PATH = re.compile(
    r"(?:virt\w*|vp|vpmem|rpmsg|scmi|p9)_\w*(?:remove|freeze|del_vqs|delete_vqs|vqs_del|"
    r"deinit|shutdown|release|exit|reset_prepare|unprobe)\w*"
    r"|(?:virtblk|virtnet|virtballoon|virtcons|virtscsi|virtrng|virtinput|virtio_\w+|virtsnd)_(?:remove|freeze|exit)\w*"
    r"|remove_(?:vq_common|vqs|common)\w*|virtio_pci_(?:remove|freeze|release)\w*|unregister_virtio_device"
    r"|p9_virtio_remove|viommu_remove|bt_virtio\w*|virtbt_\w+|mac80211_hwsim_virtio\w*|rpmsg_remove|fini_vqs"
)
# The same function on the way in: a device that is being probed and fails.
PROBE_PATH = re.compile(
    r"(?:virt\w*_probe|virtio_pci_probe|init_vqs?|vp_find_vqs\w*|virtio_dev_probe|virtnet_find_vqs)\Z"
)
CALLER = "vp_del_vqs"
_CALLED = "the kernel called address 0"
FINEIBT = (1 << 64) - 16  # fineibt_preamble_size in arch/x86/kernel/alternative.c
BELOW_ZERO = (1 << 64) - 64  # the hash stands up to 59 bytes in front of a function (CONFIG_FUNCTION_PADDING_BYTES)
X86_CHECK = re.compile(r"41 ba(?: [0-9a-f]{2}){4} <4[45]> 03 [4-7][0-9a-f](?: 24)? (?P<offset>[89a-f][0-9a-f])\b")
ARM64_TRAP = re.compile(r"[(<]([0-9a-f]{8})[)>]")
LDUR_MASK, LDUR_W16 = 0xFFF00C1F, 0xB8500010  # ldur w16, [xN, #-N]: Arm ARM, C6.2
KINDS = {
    "virtblk": "a disk",
    "virtnet": "a network card",
    "remove_vq_common": "a network card",
    "virtballoon": "a memory balloon",
    "virtcons": "a console",
    "virtio_console": "a console",
    "virtscsi": "a SCSI controller",
    "virtrng": "a random number generator",
    "virtio_vsock": "a socket device",
    "virtio_fs": "a shared file system",
    "p9_virtio": "a shared file system",
    "virtinput": "an input device",
    "virtsnd": "a sound card",
    "virtio_gpu": "a graphics card",
    "virtio_mem": "a memory device",
    "virtio_pmem": "a persistent memory device",
}


class Recognition(msgspec.Struct, frozen=True):
    """What the signature says of an event."""

    advisory: str | None
    confidence: float  # 0..1
    why: str
    known_as: str | None = None  # another known defect that it is
    device_kind: str | None = None  # "a disk"
    undecided: bool = False  # the report is too short to exclude the defect


def recognise(event: Event) -> Recognition:
    """Judge one event."""
    frames = [frame for frame in event.trace if frame.reliable]
    names = [_base(frame.function) for frame in frames]
    device = _device(names)
    other = _look_alike(event, names)
    if other is not None:
        return Recognition(None, 0.0, other[1], known_as=other[0], device_kind=device)
    checked = _kcfi(event)
    if checked is None:
        why = f"{CALLER} read just below address 0, as kCFI does before a null call; the code that shows it is cut off"
        return Recognition(None, 0.0, why, device_kind=device, undecided=True)
    through = _fineibt(event)
    if through is None and names[:1] in ([], [CALLER]):
        why = "the kernel called fffffffffffffff0, as FineIBT calls address 0; the registers that show it are cut off"
        return Recognition(None, 0.0, why, device_kind=device, undecided=True)
    if event.kind != "null-call" and not checked and not through:
        if _cut_too_early(event, names):
            return Recognition(
                None, 0.0, "the report ends before it says what was called, and from where", undecided=True
            )
        return Recognition(None, 0.0, _why_not_call(event, names), device_kind=device)
    if checked:
        # The instruction pointer is in the caller, which unwinders leave out of the trace or put on top of it.
        names = [CALLER, *(names[1:] if names[:1] == [CALLER] else names)]
    if not names:
        doubtful = [_base(frame.function) for frame in event.trace]
        if CALLER in doubtful:
            why = f"the kernel called address 0, and {CALLER} is in the trace only as a frame that the unwinder doubts"
            return Recognition(None, 0.0, why, undecided=True)
        why = "the kernel called address 0, and the report does not tell from where"
        return Recognition(None, 0.0, why, undecided=True)
    if names[0] != CALLER:
        return Recognition(
            None, 0.0, f"the kernel called address 0 from {names[0]}, not from {CALLER}", device_kind=device
        )
    below = names[1:]
    if any(PROBE_PATH.match(name) for name in below):
        return Recognition(None, 0.0, f"{CALLER} was called while a device was being set up, not taken away")
    path = next((name for name in below if DRIVER_PATH.fullmatch(name)), None)
    if path is None:
        if not below:
            return Recognition(
                ID,
                0.6,
                f"the kernel called address 0 from {CALLER}; the report ends there, so that the removal is not seen",
            )
        if event.truncated and len(below) < 2:
            why = f"the kernel called address 0 from {CALLER}; the report ends before it says what for"
            return Recognition(None, 0.0, why, undecided=True)
        return Recognition(
            None, 0.0, f"the kernel called address 0 from {CALLER}, but no virtio driver's removal stands below it"
        )
    confidence, reasons = (
        0.9,
        [
            "the kernel was about to call address 0, and kCFI read in front of it"
            if checked
            else _CALLED + (" by way of FineIBT's check in front of it" if through else ""),
            f"the call was made by {CALLER}",
            f"which {path} had called to take the device away",
        ],
    )
    if event.fetch:
        confidence += 0.03
        reasons.append("the processor says that it was an instruction fetch")
    if event.trigger is not None:
        confidence += 0.03
    if event.corrupted:
        confidence -= 0.15
        reasons.append("though parts of the report are garbled")
    contradiction = _version_contradiction(event.kernel)
    if contradiction:
        confidence -= 0.25
        reasons.append(contradiction)
    return Recognition(ID, round(max(0.1, min(confidence, 0.98)), 2), ", ".join(reasons), device_kind=device)


def _kcfi(event: Event) -> bool | None:
    """Whether kCFI's check of a callee at address 0 faulted in vp_del_vqs(); `None` where only the code would tell.

    An error code that is taken for a pointer lies below address 0 as well. So the trapping instruction has to be the
    check: x86-64 `mov $hash,%r10d; add -N(%reg),%r10d` (clang's KCFI_CHECK), arm64 `ldur w16, [xN, #-N]`.
    """
    where = _base((event.ip or "").partition("+")[0])
    address = int(event.address, 16) if event.address else 0
    if where != CALLER or event.kind not in ("paging-fault", "null-deref") or event.fetch or address < BELOW_ZERO:
        return False
    if not event.code:
        return None
    if found := X86_CHECK.search(event.code):
        return int(found["offset"], 16) - 256 + (1 << 64) == address
    return any((int(word, 16) & LDUR_MASK) == LDUR_W16 for word in ARM64_TRAP.findall(event.code))


def _fineibt(event: Event) -> bool | None:
    """Whether FineIBT called a callee at address 0; `None` where only the registers would tell.

    A call of the error code -16 goes to the same address, so the registers must be as `mov $hash,%r10d; sub $16,%r11`
    leaves them.
    """
    if event.kind != "paging-fault" or not event.fetch or event.address is None or int(event.address, 16) != FINEIBT:
        return False
    hash_, target = (event.registers.get(name) for name in ("R10", "R11"))
    if hash_ is None or target is None:
        return None
    return int(target, 16) == FINEIBT and 0 < int(hash_, 16) < 1 << 32


def _cut_too_early(event: Event, names: Sequence[str]) -> bool:
    """Whether a report that is cut off or garbled may still be this one: nothing in it says otherwise."""
    if not (event.truncated or event.corrupted) or names or event.ip is not None:
        return False
    near_zero = event.address is None or int(event.address, 16) == 0 or int(event.address, 16) >= BELOW_ZERO
    return event.kind in ("null-deref", "paging-fault") and near_zero


def _look_alike(event: Event, names: Sequence[str]) -> tuple[str, str] | None:
    """Known defects in the same place: their name, and how they are told."""
    at = event.function or ""
    where = _base((event.ip or "").partition("+")[0])
    if where == "vp_reset" or (at == "vp_reset" and event.kind in ("null-deref", "paging-fault", "gpf")):
        return (
            "CVE-2024-53092",
            "the fault is inside vp_reset, a use of a modern device's admin queue (v6.11 to v6.11.8), no null call",
        )
    if CALLER in names[:4] or where == CALLER:
        listed = [name for name in (where, *names[:3]) if "__list_del_entry" in name or "list_del" in name]
        if listed and event.kind != "null-call":
            return (
                "the wrong virtqueue index in vp_del_vqs (v6.11 and later)",
                f"the list of queues is damaged ({listed[0]} under {CALLER}): not a call of address 0",
            )
        if event.kind == "warning" and (at == "free_irq" or "free_irq" in names[:4] or where == "free_irq"):
            return (
                "CVE-2024-37353",
                (
                    f"a warning in free_irq under {CALLER}: an interrupt that was never requested is freed, "
                    f"no crash of this defect"
                ),
            )
    if event.kind in ("hung-task", "soft-lockup", "rcu-stall") and "virtblk_remove" in names:
        return (
            "CVE-2022-50636",
            "a task hangs in virtblk_remove with requests in flight; nothing was called at address 0",
        )
    return None


def _why_not_call(event: Event, names: Sequence[str]) -> str:
    if CALLER in names:
        return f"{CALLER} is in the trace, but the kernel did not call address 0 there"
    if event.kind in ("null-deref", "paging-fault", "gpf"):
        return "the kernel accessed a bad address; it did not call address 0"
    return "the kernel did not call address 0"


def _version_contradiction(kernel: str | None) -> str:
    """What the version says against it. A version never decides: vendors backport the defect and its fix."""
    match = re.match(r"(\d+)\.(\d+)", kernel or "")
    if match and (int(match[1]), int(match[2])) < (6, 8):
        return f"though upstream had no such code in {kernel}: a vendor's backport, if the trace is right"
    if match and (int(match[1]), int(match[2])) >= (6, 11):
        return f"though upstream had redesigned the code in {kernel}"
    return ""


def _device(names: Sequence[str]) -> str | None:
    return next((kind for name in names for sign, kind in KINDS.items() if name.startswith(sign)), None)


def _base(name: str) -> str:
    """Without what compilers append: vp_del_vqs.llvm.123, virtblk_remove.cold."""
    return name.split(".", 1)[0] if name[:1] != "." else name


def frame_of_defect(event: Event) -> Frame | None:
    """The frame of the call, whose function size must match the kernel that it is compared with."""
    return next((frame for frame in event.trace if frame.reliable and _base(frame.function) == CALLER), None)
