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

from ejectable.advisories.facts import LookAlike
from ejectable.advisories.look_alikes import look_alike
from ejectable.advisories.recognition import Recognition
from ejectable.advisories.resemblance import resembles
from ejectable.model import Doubt, DoubtKind, Event, Status, earned

__all__ = ["NullCall"]

CALLER = "vp_del_vqs"

# What takes a virtio device away from its driver, or freezes it: the bus' own functions, which stand below every
# driver's, and the names that the tree's drivers give their removal.
REMOVAL = re.compile(
    r"virtio_dev_(?:remove|shutdown)|virtio_device_freeze|unregister_virtio_device|virtio_pci_(?:remove|freeze)\w{0,20}"
    r"|(?:virt|vp_|vpmem|rpmsg|scmi|p9_)\w{0,50}(?:remove|freeze|del_vqs|delete_vqs|vqs_del|"
    r"deinit|shutdown|release|exit|reset_prepare|unprobe)\w{0,30}"
    r"|remove_(?:vq_common|vqs|common)\w{0,20}|p9_virtio_remove|viommu_remove|bt_virtio\w{0,20}|virtbt_\w{1,20}"
    r"|rpmsg_remove|fini_vqs"
)
# The same function on the way in: vp_find_vqs_msix() calls it where a probe fails.
PROBE_PATH = re.compile(r"virt\w{0,30}_probe|virtio_pci_probe|init_vqs?|vp_find_vqs\w{0,20}|virtio_dev_probe")
# Pieces of code through which an indirect call goes: with a frame of their own in some traces, and never the caller.
THUNK = re.compile(
    r"__x86_(?:indirect|return)_\w{0,30}|__llvm_retpoline\w{0,20}|srso_\w{0,30}|retbleed_\w{0,30}|its_return_thunk"
    r"|__fentry__|mcount|ftrace_\w{0,20}caller|clear_bhb_\w{0,20}"
)
# What vp_del_vqs() calls, directly or not: where one of these called address 0, it was not vp_del_vqs().
CALLEE = re.compile(
    r"vp_\w{1,40}|\w{0,40}(?:irq|msi|msix|vector)\w{0,40}|pci_\w{1,40}|vring_\w{1,40}|k?v?free\w{0,20}"
    r"|virtqueue_\w{1,30}|io(?:read|write)\w{1,10}|\w{0,30}list_\w{1,30}|\w{0,20}spin_\w{1,40}|dma_\w{1,40}"
)
# The way on which vp_del_vqs() is called, from the driver down to the device's core. Where the first frame is one of
# these, the line of the frame above it may be lost: nothing of it calls through a pointer that was never set.
WAY = re.compile(
    r"(?:__)?device_(?:del|remove|unregister|release_driver\w{0,20}|driver_detach|links_\w{1,30})|bus_remove_device"
    r"|__device_release_driver|pci_(?:device_remove|stop\w{0,40}|remove\w{0,40})|acpiphp\w{1,40}|disable_slot|hotplug_event"
    r"|acpi_\w{0,20}hot\w{1,30}|pciehp\w{1,40}|driver_detach|unbind_store|virtio_\w{1,40}|drv_attr_store"
    r"|pci_pm_\w{1,30}|dpm_\w{1,30}|init_vqs?|async_\w{1,30}|\w{0,20}device_suspend\w{0,20}|(?:remove|eject|state)_store"
    r"|pm_\w{1,30}|suspend_\w{1,40}|\w{0,20}delete_module|free_module|\w{0,40}_work_fn"
    # On the way in, from the driver's probe up; and whoever writes to sysfs.
    r"|really_probe|call_driver_probe|(?:__)?driver_(?:probe_device|attach\w{0,20}|register)|__device_attach\w{0,20}"
    r"|device_(?:add|attach|initial_probe)|bus_(?:probe_device|for_each_\w{1,10}|add_driver)|deferred_probe_\w{1,20}"
    r"|(?:local_)?pci_(?:device_probe|call_probe|probe)|do_init_module|load_module|irq_thread\w{0,10}"
    r"|(?:k|__v|v)?s?fs_write|kernfs_fop_write\w{0,10}|sysfs_kf_write|new_sync_write|ksys_write|dev_attr_store"
)
# Where a thread began: such a frame says nothing of what was at work.
BOTTOM = re.compile(
    r"ret_from_fork\w{0,20}|kthread|worker_thread|process_one_work|process_scheduled_works|entry_\w{1,50}|do_syscall_\w{1,30}"
    r"|x64_sys_call|el0\w{1,40}|do_el0_svc|invoke_syscall|ret_fast_syscall|kernel_init\w{0,20}|do_one_initcall|do_idle|cpu_startup_entry|default_idle\w{0,20}|start_secondary|rest_init"
)
FIRST_PAGE = 0x1000
FINEIBT = (1 << 64) - 16  # fineibt_preamble_size in arch/x86/kernel/alternative.c
BELOW_ZERO = (1 << 64) - 64  # the hash stands up to 59 bytes in front of a function (CONFIG_FUNCTION_PADDING_BYTES)
X86_CHECK = re.compile(r"41 ba(?: [0-9a-f]{2}){4} <4[45]> 03 [4-7][0-9a-f](?: 24)? (?P<offset>[89a-f][0-9a-f])\b")
# Enough of the code to see that it is no such check: what stands before the trapping byte, and the instruction.
X86_CODE = re.compile(r"(?:[0-9a-f]{2} ){6,64}<[0-9a-f]{2}>(?: [0-9a-f]{2}){4,64}")
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
# Faults of which a report without an instruction pointer does not say whether something was called.
FAULTS = frozenset(("null-deref", "paging-fault"))


class NullCall:
    """The signature; `look_alikes` are other defects whose crash may be taken for this one."""

    def __init__(self, look_alikes: Sequence[LookAlike] = ()) -> None:
        self._look_alikes = look_alikes

    def recognise(self, event: Event, beside: Sequence[Event] = ()) -> Recognition:  # noqa: ARG002  (the protocol's)
        """What it says of one event."""
        return _recognise(event, self._look_alikes)


def _recognise(event: Event, look_alikes: Sequence[LookAlike]) -> Recognition:
    """Judge one event.

    Two things must be seen: that address 0 was called, and that vp_del_vqs() called it. Where either cannot be seen,
    it is unknown; where one is seen not to be so, it is something else, if nothing that was not seen may hide it.
    """
    names = [_base(frame.function) for frame in event.trace if frame.reliable]
    while names and THUNK.fullmatch(names[0]):
        del names[0]
    everything = [_base(frame.function) for frame in event.trace]
    device = _device(names)
    called, how = _called(event, everything)
    if called is None:
        return _unless_elsewhere(event, names, everything, how, device)
    if not called:
        other = look_alike(event, [_base(frame.function) for frame in event.trace if frame.reliable], look_alikes)
        # A fault where the defect is at home, in a report that is not whole, may be the defect's.
        where = _base((event.ip or "").partition("+")[0])
        home = any(name == CALLER or _nearly(name) for name in (where, *everything)) and event.kind in (
            *FAULTS,
            "other",
        )
        home = home or (_is_fault(event) and event.corrupted and event.trigger is not None)
        mixed = [doubt for doubt in event.doubts if home or doubt.kind is DoubtKind.MISSING]
        if other is None:
            return _something_else(how, device, mixed)
        return _something_else(other.why, device, mixed, known_as=other.name, fix=other.fix)
    if event.kind == "paging-fault" and not event.fetch:  # kCFI's check: vp_del_vqs itself is where it faulted
        names = [CALLER, *(names[1:] if names[:1] == [CALLER] else names)]
    if names[:1] != [CALLER]:
        return _another_caller(event, names, everything, device)
    return _is_it(event, names[1:], how, device)


def _called(event: Event, everything: Sequence[str]) -> tuple[bool | None, str]:
    """Whether the kernel called address 0, `None` where that cannot be seen; and how that is known."""
    checked = _kcfi(event)
    if checked is None:
        return None, f"{CALLER} read just below address 0, as kCFI does before a null call; the code is cut off"
    if checked:
        return True, "the kernel was about to call address 0, and kCFI read in front of it"
    through = _fineibt(event)
    if through is None:
        return None, "the kernel called fffffffffffffff0, as FineIBT calls address 0; the registers are cut off"
    if through:
        return True, "the kernel called address 0 by way of FineIBT's check in front of it"
    if event.kind == "null-call":
        return True, "the kernel called address 0"
    address = int(event.address or event.registers.get("CR2", "0"), 16)
    if _is_fault(event) and event.ip is None and (event.address is None or address == 0 or address >= BELOW_ZERO):
        return None, "the report does not show what was called"
    if _is_fault(event) and (event.ip or "").startswith("0x") and int(event.ip or "", 16) < FIRST_PAGE:
        return None, f"the instruction pointer {event.ip} cannot be right"
    if event.kind in ("bug", "other") and not event.trace and event.ip is None and event.doubts:
        return None, "the report shows neither a trace nor where the kernel was"
    if CALLER in everything:
        return False, f"{CALLER} is in the trace, but the kernel did not call address 0 there"
    if event.kind in ("null-deref", "paging-fault", "gpf"):
        return False, "the kernel accessed a bad address; it did not call address 0"
    return False, "the kernel did not call address 0"


def _is_fault(event: Event) -> bool:
    """Whether the processor refused an access, as far as the report says why it was printed."""
    return event.kind in FAULTS or (event.kind == "other" and (event.oops is not None or event.beginning_lost))


def _unless_elsewhere(
    event: Event, names: Sequence[str], everything: Sequence[str], how: str, device: str | None
) -> Recognition:
    """Not known what was called: unknown, unless the trace shows that it was somewhere else."""
    told = [name for name in names if not BOTTOM.fullmatch(name)]
    hidden_caller = any(
        name == CALLER or REMOVAL.fullmatch(name) or PROBE_PATH.fullmatch(name) or _nearly(name) for name in everything
    )
    if hidden_caller or not told or (event.trigger is not None and WAY.fullmatch(told[0])):
        return Recognition(Status.UNKNOWN, 0.0, how, device_kind=device, doubts=event.doubts)
    why = f"{how}, but {names[0]} was at work, not {CALLER}"
    return _something_else(why, device, _what_hides_the_caller(event))


def _what_hides_the_caller(event: Event) -> list[Doubt]:
    """The doubts under which a frame above the first one may be missing."""
    doubts = [doubt for doubt in event.doubts if doubt.kind is not DoubtKind.CUT_OFF]
    if not event.trace_headed:
        where, detail = f"{event.source}:{event.line}", "The line under which the trace begins is missing."
        doubts.append(Doubt(DoubtKind.CUT_OFF, where, detail))
    return doubts


def _something_else(
    why: str, device: str | None, doubts: Sequence[Doubt], *, known_as: str | None = None, fix: str | None = None
) -> Recognition:
    status = earned(Status.NOT_AFFECTED, doubts)
    if status is Status.UNKNOWN:
        why = f"{why}; but {doubts[0].detail[:1].lower()}{doubts[0].detail[1:].rstrip('.')}"
    return Recognition(status, 0.0, why, known_as=known_as, fix=fix, device_kind=device, doubts=tuple(doubts))


def _another_caller(event: Event, names: Sequence[str], everything: Sequence[str], device: str | None) -> Recognition:
    """Address 0 was called, and the first frame is not vp_del_vqs(): safe only where nothing can have hidden it."""

    def unknown(why: str) -> Recognition:
        doubt = Doubt(DoubtKind.AMBIGUOUS, f"{event.source}:{event.line}", why[:1].upper() + why[1:] + ".")
        return Recognition(Status.UNKNOWN, 0.0, why, device_kind=device, doubts=(*event.doubts, doubt))

    if all(BOTTOM.fullmatch(name) for name in names):
        if CALLER in everything:
            return unknown(f"{CALLER} is in the trace only as a frame that the unwinder doubts")
        return unknown("the kernel called address 0, and the report does not tell from where")
    first = next(at for at, frame in enumerate(event.trace) if frame.reliable and _base(frame.function) == names[0])
    if CALLER in names:
        above = names[: names.index(CALLER)]
        foreign = next((name for name in above if not CALLEE.fullmatch(name) or PROBE_PATH.fullmatch(name)), None)
        if foreign is not None:
            return unknown(
                f"{foreign}, which {CALLER} never calls, stands above it: another CPU's lines may be mixed in"
            )
    elif CALLER in everything[:first]:
        return unknown(f"{CALLER} stands above {names[0]} as a frame that the unwinder doubts")
    nearly = next((name for name in everything if _nearly(name)), None)
    if names[0] == "vp_del_vq" and CALLER not in names:  # which nobody else calls
        nearly = names[0]
    if nearly is not None:
        return unknown(f"{nearly} may be {CALLER}, typed or read wrong")
    if CALLER not in names and any(pattern.fullmatch(names[0]) for pattern in (REMOVAL, PROBE_PATH, WAY)):
        return unknown(f"the kernel called address 0 from {names[0]}; the frame above it may be lost")
    why = f"the kernel called address 0 from {names[0]}, not from {CALLER}"
    return _something_else(why, device, _what_hides_the_caller(event))


def _is_it(event: Event, below: Sequence[str], how: str, device: str | None) -> Recognition:
    """Address 0 was called from vp_del_vqs(): how sure is it, and on which way was it."""
    mixed = tuple(doubt for doubt in event.doubts if doubt.kind is DoubtKind.AMBIGUOUS)
    if mixed:
        why = f"{how} and {CALLER} is in the trace, but lines of two tasks are mixed in the report"
        return Recognition(Status.UNKNOWN, 0.0, why, device_kind=device, doubts=mixed)
    reasons = [how, f"the call was made by {CALLER}"]
    removal = next((name for name in below if REMOVAL.fullmatch(name)), None)
    probing = next((name for name in below if PROBE_PATH.fullmatch(name)), None)
    if probing is not None:
        confidence = 0.8
        reasons.append(f"which {below[0]} had called because setting up a device had failed")
    elif removal is not None:
        confidence = 0.92
        reasons.append(f"which {removal} had called to take the device away")
    elif below:
        confidence = 0.75
        reasons.append(f"which {below[0]} had called; that a device was being removed is not seen")
    else:
        confidence = 0.6
        reasons.append("the report ends there, so that the removal is not seen")
    if event.fetch and below:
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
    sure = round(max(0.1, min(confidence, 0.98)), 2)
    return Recognition(Status.AFFECTED, sure, ", ".join(reasons), device_kind=device)


def _nearly(name: str) -> bool:
    """Whether a name may be vp_del_vqs, typed or read wrong."""
    return resembles(name, CALLER)


def _kcfi(event: Event) -> bool | None:
    """Whether kCFI's check of a callee at address 0 faulted in vp_del_vqs(); `None` where only the code would tell.

    An error code that is taken for a pointer lies below address 0 as well. So the trapping instruction has to be the
    check: x86-64 `mov $hash,%r10d; add -N(%reg),%r10d` (clang's KCFI_CHECK), arm64 `ldur w16, [xN, #-N]`.
    """
    where = _base((event.ip or "").partition("+")[0])
    address = int(event.address or event.registers.get("CR2", "0"), 16)
    if not _is_fault(event) or event.fetch or (where != CALLER and not _nearly(where)):
        return False
    if address and address < BELOW_ZERO:
        return False
    if not event.code or address == 0 or where != CALLER:
        return None
    if found := X86_CHECK.search(event.code):
        # Where the two do not agree, one of them was not read right.
        return True if int(found["offset"], 16) - 256 + (1 << 64) == address else None
    if event.arch != "aarch64" and not _shows_the_trap(event.code):
        return None
    return any((int(word, 16) & LDUR_MASK) == LDUR_W16 for word in ARM64_TRAP.findall(event.code))


def _shows_the_trap(code: str) -> bool:
    """Whether a `Code:` line of x86-64 is whole where the check would be: before the marked byte, and behind it."""
    words = code.split()
    marked = next((at for at, word in enumerate(words) if word.startswith("<")), None)
    return marked is not None and marked >= 6 and len(words) - marked >= 5 and bool(X86_CODE.fullmatch(code.strip()))


def _fineibt(event: Event) -> bool | None:
    """Whether FineIBT called a callee at address 0; `None` where only the registers would tell.

    A call of the error code -16 goes to the same address, so the registers must be as `mov $hash,%r10d; sub $16,%r11`
    leaves them.
    """
    jumped = event.fetch or (event.ip or "").startswith("0x")
    if not _is_fault(event) or not jumped:
        return False
    if FINEIBT not in (int(one, 16) for one in (event.address, event.ip) if one and one.startswith("0x")):
        return False
    hash_, target = (event.registers.get(name) for name in ("R10", "R11"))
    if hash_ is None or target is None:
        return None
    return int(target, 16) == FINEIBT and 0 < int(hash_, 16) < 1 << 32


def _version_contradiction(kernel: str | None) -> str:
    """What the version says against it. A version never decides: vendors backport the defect and its fix."""
    match = re.match(r"(\d{1,4})\.(\d{1,5})", kernel or "")
    if match and (int(match[1]), int(match[2])) < (6, 8):
        return f"though upstream had no such code in {kernel}: a vendor's backport, if the trace is right"
    if match and (int(match[1]), int(match[2])) >= (6, 11):
        return f"though upstream had redesigned the code in {kernel}"
    return ""


def _device(names: Sequence[str]) -> str | None:
    return next((kind for name in names for sign, kind in KINDS.items() if name.startswith(sign)), None)


def _base(name: str) -> str:
    """Without what compilers append: vp_del_vqs.llvm.123, virtblk_remove.cold."""
    return (name.split(".", 1)[0] if name[:1] != "." else name)[:80]
