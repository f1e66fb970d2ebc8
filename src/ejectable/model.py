# SPDX-License-Identifier: GPL-2.0-or-later
"""The words: what every room of the house says to the next one.

Frozen values without I/O. Their field names are the JSON keys of the documents (docs/json.md): what is
`None` here is `null` there, and means "not known".
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from ejectable.tasks import Frame, HeldLock, Task

__all__ = [
    "EJECT",
    "EXIT_AFFECTED",
    "EXIT_BAD_INPUT",
    "EXIT_OK",
    "EXIT_UNKNOWN",
    "SAFE",
    "SEVERITY",
    "UNPLUG",
    "Applied",
    "Arch",
    "Assessment",
    "Claim",
    "Device",
    "Doubt",
    "DoubtKind",
    "Effect",
    "Event",
    "EventKind",
    "Evidence",
    "EvidenceKind",
    "Exposure",
    "Finding",
    "Frame",
    "GuestEvent",
    "HeldLock",
    "Host",
    "Judgement",
    "Justification",
    "KernelReport",
    "Likelihood",
    "Operation",
    "Outcome",
    "Phase",
    "Remedy",
    "Run",
    "RunResult",
    "Status",
    "Task",
    "Trigger",
    "earned",
    "exit_code",
    "worst",
]

EXIT_OK = 0
EXIT_AFFECTED = 2
EXIT_UNKNOWN = 3
EXIT_BAD_INPUT = 65

Arch = Literal["x86_64", "aarch64"]


class Status(StrEnum):
    """The OpenVEX words, plus `mitigated` and `unknown`."""

    AFFECTED = "affected"
    UNKNOWN = "unknown"
    MITIGATED = "mitigated"
    FIXED = "fixed"
    NOT_AFFECTED = "not_affected"


# From the worst to the best: what several findings add up to is the first of these that occurs.
SEVERITY = tuple(Status)


# The words that promise something. Whoever needs to know whether a word is safe asks here, and nowhere else.
SAFE = frozenset({Status.MITIGATED, Status.FIXED, Status.NOT_AFFECTED})


class DoubtKind(StrEnum):
    """Why something that a safe word would rest on was not seen."""

    UNREADABLE = "unreadable"  # it is there, and reading it failed
    PERMISSION = "permission"  # it is there, and this user may not read it
    MISSING = "missing"  # something points to it, and it is not there: a dangling link, a file of a list
    CUT_OFF = "cut-off"  # it breaks off before its end
    BOUND = "bound"  # a bound was reached: there may be more
    UNPARSED = "unparsed"  # it was read and not understood
    AMBIGUOUS = "ambiguous"  # there are several, and nothing tells which one counts
    IDENTITY = "identity"  # nothing shows that it is the build that runs, or that belongs to the rest
    CHANGING = "changing"  # it changed while it was read, or is in transition
    WEAK = "weak"  # only evidence that may not decide alone speaks for a safe word
    CONTRADICTED = "contradicted"  # something that was seen speaks against it


class Doubt(msgspec.Struct, frozen=True):
    """Something that was not seen, and keeps a safe word from being said of what rests on it."""

    kind: DoubtKind
    where: str  # a path, an address, a function, a line of a log
    detail: str  # one sentence for a person


def earned(status: Status, doubts: Iterable[Doubt]) -> Status:
    """`status`, unless it is a safe word beside a doubt: then `unknown`. Doubts never weaken a bad word."""
    return Status.UNKNOWN if status in SAFE and any(True for _ in doubts) else status


def worst(statuses: Iterable[Status]) -> Status:
    """The word that several findings add up to; `unknown` where there is none at all."""
    return min(statuses, key=SEVERITY.index, default=Status.UNKNOWN)


def exit_code(statuses: Iterable[Status], *, damaged: bool = False) -> int:
    """The exit code of a verdict: the worst wins, in the order 2, 3, 65, 0.

    `damaged` says that at least one input could not be read at all.
    """
    found = set(statuses)
    if Status.AFFECTED in found:
        return EXIT_AFFECTED
    if Status.UNKNOWN in found or (not found and not damaged):
        return EXIT_UNKNOWN
    return EXIT_BAD_INPUT if damaged else EXIT_OK


class EvidenceKind(StrEnum):
    """How something was found out, from the strongest to the weakest."""

    EXECUTED = "executed"
    DISASSEMBLY = "disassembly"
    TYPES = "types"
    SYMBOLS = "symbols"
    CONFIG = "config"
    SOURCE = "source"
    CHANGELOG = "changelog"
    VERSION = "version"


class Justification(StrEnum):
    """OpenVEX's reasons for `not_affected`, as far as they can be seen in code."""

    NOT_PRESENT = "vulnerable_code_not_present"
    NOT_REACHED = "vulnerable_code_not_in_execute_path"


class Evidence(msgspec.Struct, frozen=True):
    """One observation: `says` is what it would mean if it were all we knew. Code compares the fields behind `detail`,
    which is a sentence for people.
    """

    kind: EvidenceKind
    says: Status
    detail: str
    functions: tuple[str, ...] = ()  # of the kernel: those that were run or read for it
    member: str | None = None  # of a struct: the one that it is about
    claim: str | None = None  # what was seen, as one word that the advisory defines
    justification: Justification | None = None  # beside `not_affected`


class Finding(msgspec.Struct, frozen=True):
    """What one advisory says of one kernel."""

    advisory: str
    status: Status
    justification: str | None  # OpenVEX justification, for `not_affected` only
    reason: str
    evidence: tuple[Evidence, ...]
    conflict: bool
    # The annotated disassembly and the story of the run, for --explain; not part of the contract's core.
    explanation: tuple[str, ...] = ()
    # What was not seen and keeps a safe word from being said; empty beside a safe word.
    doubts: tuple[Doubt, ...] = ()
    may: bool = False  # what was executed is the invariant of a race: "may", not "will"

    def __post_init__(self) -> None:
        """Refuse a safe word that was not earned: nobody can make such a finding, by whatever way."""
        if earned(self.status, self.doubts) is not self.status:
            raise ValueError(f"{self.advisory}: {self.status} beside a doubt: {self.doubts[0].detail}")

    def doubted(self, *doubts: Doubt) -> "Finding":
        """This finding with more doubts: a safe word becomes `unknown`, and the first doubt says why."""
        if not doubts:
            return self
        status = earned(self.status, doubts)
        lowered = status is not self.status
        return msgspec.structs.replace(
            self,
            status=status,
            justification=None if lowered else self.justification,
            reason=doubts[0].detail if lowered else self.reason,
            doubts=(*self.doubts, *doubts),
        )


class Operation(StrEnum):
    """What takes a device away from its driver, or from the machine."""

    ACPI_EJECT = "acpi-eject"
    PCIE_HOTPLUG = "pcie-hotplug"
    SHPC = "shpc"
    SURPRISE_REMOVAL = "surprise-removal"
    SYSFS_REMOVE = "sysfs-remove"
    DRIVER_UNBIND = "driver-unbind"
    MODULE_UNLOAD = "module-unload"
    SUSPEND = "suspend"
    SHUTDOWN = "shutdown"
    RESET = "reset"
    SRIOV_DISABLE = "sriov-disable"


# Those that a person calls unplugging: asked for, and the device is gone afterwards.
EJECT = (Operation.ACPI_EJECT, Operation.PCIE_HOTPLUG, Operation.SHPC, Operation.SYSFS_REMOVE)
UNPLUG = (*EJECT, Operation.SURPRISE_REMOVAL)


class Effect(StrEnum):
    """What a defect does to the machine, from the worst on."""

    CORRUPTION = "corruption"
    OOPS = "oops"
    HANG = "hang"
    LEAK = "leak"
    WARNING = "warning"


Likelihood = Literal["always", "race"]


class Exposure(msgspec.Struct, frozen=True):
    """What one operation on a device meets: a defect of its kernel."""

    advisory: str
    operation: Operation
    effect: Effect
    likelihood: Likelihood
    status: Status  # affected: it meets the defect; a safe word: the kernel does not have it; else unknown
    reason: str


class KernelReport(msgspec.Struct, frozen=True):
    """One kernel and what was found in it."""

    path: str
    member: str | None  # the name inside a package or archive
    release: str | None
    banner: str | None
    arch: Arch | None
    build_id: str | None  # lower-case hex
    format: str
    virtio_pci: Literal["builtin", "module", "absent"] | None
    findings: tuple[Finding, ...]
    source: str | None = None  # `check` only: where its code was read
    running: bool | None = None  # `check` only
    # Where each module is that an advisory asked about.
    modules: dict[str, Literal["builtin", "module", "absent"] | None] = {}


class Device(msgspec.Struct, frozen=True):
    """One device of a machine, and what taking it away would do."""

    name: str  # virtio1
    transport: str  # pci, mmio, ccw, vdpa
    address: str | None  # 0000:00:06.0
    kind: str  # disk, nic, scsi, console, rng, balloon, vsock, fs
    driver: str | None
    nodes: tuple[str, ...]  # vdb, eth1
    mode: Literal["legacy", "modern", "unknown"]
    hotpluggable: bool | None
    unplug: Literal["would_oops", "safe", "unknown"]
    reason: str
    doubts: tuple[Doubt, ...] = ()  # what was not seen of how it is driven
    bus: str = "virtio"  # its own, as sysfs calls it: virtio, pci, nvme, scsi, xen, vmbus
    exposures: tuple[Exposure, ...] = ()
    # What sysfs shows of it beyond that, by the attribute's name there: {"features": "0110...", "sriov_numvfs": "1"}.
    attributes: dict[str, str] = {}


class Host(msgspec.Struct, frozen=True):
    """The machine that was looked at."""

    name: str | None
    os: str | None
    kernel_release: str | None
    arch: str | None
    virtualization: str | None
    cloud: str | None
    instance_type: str | None


class Outcome(msgspec.Struct, frozen=True):
    """What an Oops would do to this machine."""

    panic_on_oops: Literal[0, 1] | None
    effect: Literal["panic", "hang", "none", "unknown"]
    reboot_after_s: int | None  # kernel.panic; 0 means never, negative means at once
    kdump: bool | None


class Assessment(msgspec.Struct, frozen=True):
    """The answer of `check`: what the facts and the advisories add up to for one machine."""

    status: Status
    summary: str
    next_steps: tuple[str, ...]
    host: Host
    kernel: KernelReport | None
    devices: tuple[Device, ...]
    outcome: Outcome
    notes: tuple[str, ...] = ()  # what limits this answer: no root, a container, a kernel not booted
    doubts: tuple[Doubt, ...] = ()  # what was not seen of the machine: it may have more devices than those


EventKind = Literal[
    "null-call",
    "null-deref",
    "paging-fault",
    "gpf",
    "bug",
    "panic",
    "warning",
    "soft-lockup",
    "hard-lockup",
    "hung-task",
    "rcu-stall",
    "kasan",
    "kmsan",
    "kcsan",
    "ubsan",
    "lockdep",
    "double-fault",
    "divide-error",
    "undefined-instruction",
    "stack-overflow",
    "other",
]

Trigger = Literal["acpi-eject", "pcie-hotplug", "sysfs-remove", "driver-unbind", "module-unload", "suspend", "shutdown"]


class Event(msgspec.Struct, frozen=True):
    """One thing that went wrong, read from a log."""

    source: str
    line: int  # of its first line, from 1
    time: str | None  # as the log gives it
    kind: EventKind
    title: str
    function: str | None  # the first one to blame
    ip: str | None  # "virtblk_remove+0x6e/0x220", "0x0"
    module: str | None
    process: str | None
    pid: int | None
    cpu: int | None
    kernel: str | None
    arch: str | None
    trigger: Trigger | None
    truncated: bool
    corrupted: bool
    fingerprint: str
    trace: tuple[Frame, ...]
    # Beyond the contract's core.
    last_line: int | None = None  # of the report
    follows: int | None = None  # the line of the event that this one is a consequence of
    oops: int | None = None  # the N of [#N]: how often this kernel has died
    address: str | None = None  # that was accessed or called: "0x0"
    fetch: bool | None = None  # the access was an instruction fetch
    taint: tuple[str, ...] = ()  # in words
    registers: dict[str, str] = {}  # as printed: {"RDI": "ffff8881031a8000"}
    code: str | None = None  # the bytes of the Code: line, the trapping one in <>
    modules: tuple[str, ...] = ()
    workqueue: str | None = None
    hardware: str | None = None
    device: str | None = None  # which one it was about, as far as the log tells
    host: str | None = None  # who said it, where the log names somebody
    waits_for: str | None = None  # of a task that hangs, in words, as far as its trace tells
    owner: Task | None = None  # who is said to hold what it waits for
    locks: tuple[HeldLock, ...] = ()  # that tasks hold, where lockdep lists them in the report
    ends_log: bool = False  # nothing stands behind the report: what the kernel did next is not told
    beginning_lost: bool = False  # the report's first lines are not in the log
    trace_headed: bool = True  # the line was read under which the trace begins: no frame above the first is missing
    # What of the report is missing, cannot be read, or may be another's.
    doubts: tuple[Doubt, ...] = ()


class Judgement(msgspec.Struct, frozen=True):
    """What the advisories say of an event."""

    status: Status  # affected: it is `advisory`'s crash
    advisory: str | None = None
    confidence: float = 0.0  # 0..1
    why: str = ""
    known_as: str | None = None  # another known defect that it is
    known_fix: str | None = None  # what repairs the defect that it is, as a sentence
    doubts: tuple[Doubt, ...] = ()  # what keeps it from being called something else

    def __post_init__(self) -> None:
        """Refuse a safe word that was not earned."""
        if earned(self.status, self.doubts) is not self.status:
            raise ValueError(f"{self.status} beside a doubt: {self.doubts[0].detail}")


# Of a run in a guest: before the device is used, while it is, while one is plugged; while it is taken away, and once it
# is gone.
Phase = Literal["boot", "use", "plug", "trigger", "after"]

RunResult = Literal["survived", "oops", "panic", "hang", "crashed-otherwise", "no-boot", "no-unplug"]


class GuestEvent(msgspec.Struct, frozen=True):
    """One thing that went wrong in a guest, and whether the removal is to blame for it."""

    phase: Phase  # of its first line
    kind: EventKind
    title: str
    function: str | None
    process: str | None
    line: int  # of the transcript, from 1
    fatal: bool  # the kernel, or one of its threads, ended with it
    removal: bool  # its trace, process or work queue is the removal's
    advisory: str | None  # whose signature it has
    trace: tuple[str, ...] = ()  # the functions, innermost first


class Run(msgspec.Struct, frozen=True):
    """One unplug in a guest. Times in seconds."""

    kernel: str
    arch: Arch
    accelerator: Literal["kvm", "tcg"]
    machine: str
    device: str
    mode: str
    trigger: str
    result: RunResult
    advisory: str | None
    boot_s: float | None
    verdict_s: float | None
    console: str | None  # path of the transcript
    panic_on_oops: Literal[0, 1] = 0
    under_io: bool = False
    driven: Literal["legacy", "modern"] | None = None  # as the guest drove the device, where it was seen
    cycles: int = 0  # of plugging and unplugging that were completed
    alive: bool | None = None  # after an Oops: whether the guest still answered
    release: str | None = None  # as the guest gives it
    crash: str | None = None  # the title of the crash
    detail: str = ""  # what happened, in words
    qmp: str | None = None  # path of the transcript
    events: tuple[GuestEvent, ...] = ()  # all that went wrong, in the order of the transcript
    attempts: int = 1  # how often it was tried until it said something about the unplug
    control: RunResult | None = None  # the result of the same guest without the unplug, where one was run
    properties: dict[str, str] = {}  # that the device was given in QEMU because an advisory's scenario asks for them


class Claim(msgspec.Struct, frozen=True):
    """What runs in guests say of an advisory, and in one line why."""

    advisory: str
    verdict: Literal["confirmed", "refuted", "open"]
    line: str
    exercised: bool = True  # whether any run did what can show the defect


class Remedy(msgspec.Struct, frozen=True):
    """One line of the plan of `fix`."""

    remedy: str  # upgrade, force-legacy, instance-type, live, source-patch, detach-while-stopped, panic-policy
    state: Literal["recommended", "possible", "impossible", "done"]
    why: str
    commands: tuple[str, ...]  # that a person can paste
    verified: bool  # that it helps was checked, not only believed
    # Beyond the contract's core.
    cost: str = ""  # what it takes: a reboot, a stop and start, nothing
    details: tuple[str, ...] = ()  # what was found out on the way: shown with --verbose
    diff: tuple[str, ...] = ()  # what would be changed in a file, unified


class Applied(msgspec.Struct, frozen=True):
    """What became of `fix REMEDY --apply` (or `--undo`)."""

    remedy: str
    changes: tuple[str, ...]  # one sentence for each thing that was changed; empty where nothing had to be
    verified: bool  # the remedy's own check passed afterwards
    why: str  # what the check saw
    reboot: bool = False  # it takes effect with the next boot
    diff: tuple[str, ...] = ()  # of files, unified
    next_steps: tuple[str, ...] = ()
    undo: str | None = None  # the command that takes it back
