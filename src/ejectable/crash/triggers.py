# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines with which the kernel begins to complain, from 3.10 to today, on every architecture.

Each `Trigger` names the kind, gives the title, and says how the function to blame is found (`ejectable.crash.blame`).
They are tried in order, the special before the general. Patterns run on a line without its prefix and have no
nested repetition: their time is linear.
"""

import re
from functools import lru_cache
from typing import Literal

import msgspec

from ejectable.model import EventKind

__all__ = ["TRIGGERS", "Match", "Trigger", "find"]

Way = Literal["stack", "named", "at", "hang", "stall", "leak", "none", "race", "rcu-usage", "last"]
Role = Literal["head", "die", "panic"]


class Trigger(msgspec.Struct, frozen=True):
    """One wording. `title` may use {0}, {1}.. for groups, {f} for the function, {access} for Read or Write."""

    name: str
    pattern: re.Pattern[str]
    kind: EventKind
    title: str
    way: Way = "stack"
    role: Role = "head"
    # A trap into the kernel: a die line (`Oops: 0000 [#1]`) and registers belong to it.
    trap: bool = False
    # The report has no stack trace of its own, so that a missing one is no damage.
    bare: bool = False


class Match(msgspec.Struct, frozen=True):
    """A trigger in a line."""

    trigger: Trigger
    groups: tuple[str | None, ...]


def _t(
    name: str,
    pattern: str,
    kind: EventKind,
    title: str,
    way: Way = "stack",
    role: Role = "head",
    *,
    trap: bool = False,
    bare: bool = False,
) -> Trigger:
    return Trigger(name, re.compile(pattern), kind, title, way, role, trap, bare)


# No letter or underscore in front: "DEBUG: ", "ODEBUG: ", "Boot_DEBUG: " are not meant.
B = r"(?<![A-Za-z_])BUG: "
LOCKDEP = r"(?<![A-Za-z_])(?:WARNING|INFO|BUG): "

TRIGGERS: tuple[Trigger, ...] = (
    # Sanitizers (mm/kasan/report.c, mm/kmsan/report.c, kernel/kcsan/report.c, mm/kfence/report.c, lib/ubsan.c).
    _t(
        "kasan-free",
        B + r"KASAN: (double-free|invalid-free) or (?:double|invalid)-free in (\S+)",
        "kasan",
        "KASAN: invalid-free in {f}",
        "named",
    ),
    _t("kasan-free", B + r"KASAN: (double-free|invalid-free) in (\S+)", "kasan", "KASAN: {0} in {f}", "named"),
    _t("kasan", B + r"KASAN: ([\w-]+) in (\S+)", "kasan", "KASAN: {0} {access} in {f}", "named"),
    _t("kasan", B + r"KASAN: ([\w-]+) on address", "kasan", "KASAN: {0} {access} in {f}"),
    _t("kasan", B + r"KASAN: ?([\w-]*)", "kasan", "KASAN: {0} in {f}"),
    _t("kmsan", B + r"KMSAN: ([\w-]+) in (\S+)", "kmsan", "KMSAN: {0} in {f}", "named"),
    _t("kmsan", B + r"KMSAN: ?([\w-]*)", "kmsan", "KMSAN: {0} in {f}"),
    _t("kcsan", B + r"KCSAN: ([\w-]+) in (\S+)(?: / (\S+))?", "kcsan", "KCSAN: {0} in {race}", "race", bare=True),
    _t("kcsan", B + r"KCSAN: ?([\w-]*)", "kcsan", "KCSAN: {0} in {f}", bare=True),
    _t("kfence", B + r"KFENCE: ([\w -]+?) in (\S+)", "kasan", "KFENCE: {0} in {f}", "named"),
    _t("kfence", B + r"KFENCE: ?([\w -]*)", "kasan", "KFENCE: {0} in {f}"),
    _t("ubsan", r"UBSAN: Undefined behaviour in (\S+)", "ubsan", "UBSAN: undefined-behaviour in {f}"),
    _t(
        "ubsan",
        r"Internal error: UBSAN: ([\w -]+): [0-9a-f]+ \[#\d+\]",
        "ubsan",
        "UBSAN: {0} in {f}",
        trap=True,
        role="die",
    ),
    _t("ubsan", r"UBSAN: ([\w-]+) in (\S+)", "ubsan", "UBSAN: {0} in {f}"),
    _t("ubsan", r"UBSAN: ([\w-]+)", "ubsan", "UBSAN: {0} in {f}"),
    # The processor refused an access.
    _t(
        "null",
        r"(?:BUG: unable to handle kernel |BUG: [Kk]ernel |nable to handle kernel )NULL pointer dereference",
        "null-deref",
        "BUG: unable to handle kernel NULL pointer dereference in {f}",
        trap=True,
    ),
    _t(
        "paging",
        r"BUG: unable to handle (?:kernel paging request|page fault for address)",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    _t(
        "paging",
        r"BUG: Unable to handle kernel (?:data access|instruction fetch|unaligned access)",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    _t(
        "paging",
        r"nable to handle kernel (paging request|access to user memory|execute from non-executable memory|read from unreadable memory|write to read-only memory|execution of user memory|pointer dereference|ecoding|unaligned access|mm fault)",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    _t(
        "paging",
        r"(?<![A-Za-z_])BUG: [Uu]nable to handle (?:kernel)?",
        "paging-fault",
        "BUG: unable to handle kernel paging request in {f}",
        trap=True,
    ),
    _t(
        "gpf",
        r"general protection fault(?:, [^:]{0,80}(?:0x[0-9a-f]+|[^:]{0,20}))?: [0-9a-f]{4}\b",
        "gpf",
        "general protection fault in {f}",
        trap=True,
    ),
    _t(
        "gpf",
        r"^(?:Oops: )?general protection fault(?:, (?:probably|maybe|kernel)|$)",
        "gpf",
        "general protection fault in {f}",
        trap=True,
    ),
    _t(
        "double-fault",
        r"PANIC: double fault|^(?:Oops: )?double fault: [0-9a-f]{4} \[#",
        "double-fault",
        "PANIC: double fault in {f}",
        trap=True,
    ),
    _t("divide", r"^(?:Oops: )?divide error: ", "divide-error", "divide error in {f}", trap=True),
    _t(
        "stack-segment",
        r"^(?:Oops: )?stack segment(?: fault)?(?:: |, )",
        "gpf",
        "stack segment fault in {f}",
        trap=True,
    ),
    _t(
        "stack",
        r"BUG: (?:[A-Z]+ )?stack guard page was hit",
        "stack-overflow",
        "BUG: stack guard page was hit in {f}",
        trap=True,
    ),
    _t(
        "stack",
        r"Insufficient stack space to handle exception|^kernel stack overflow \((?:double-fault|page fault)\): [0-9a-f]{4}",
        "stack-overflow",
        "kernel stack overflow in {f}",
        trap=True,
    ),
    _t(
        "stack",
        r"(?:\bKernel stack overflow\b|\bstack-overflow on |do_IRQ: .{0,40}stack overflow|Overflow stack: )",
        "stack-overflow",
        "kernel stack overflow in {f}",
        trap=True,
    ),
    # A check in the code failed.
    _t("list", r"kernel BUG at (?:\S*/)?lib/list_debug\.c", "bug", "BUG: corrupted list in {f}", trap=True),
    _t("usercopy", r"kernel BUG at (?:\S*/)?mm/usercopy\.c", "bug", "BUG: bad usercopy in {f}", trap=True),
    _t("bug", r"[kK]ernel BUG at (\S+?:\d+|\S+?)!?(?:$|\s)", "bug", "kernel BUG in {f}", trap=True),
    _t("bug", r"^Kernel BUG \[#\d+\]|[kK]ernel BUG at ", "bug", "kernel BUG in {f}", trap=True),
    _t(
        "opcode",
        r"^(?:Oops: )?invalid opcode: [0-9a-f]{4}",
        "undefined-instruction",
        "invalid opcode in {f}",
        role="die",
        trap=True,
    ),
    _t("die", r"Internal error: Oops - BUG", "bug", "kernel BUG in {f}", role="die", trap=True),
    _t(
        "die",
        r"Internal error: Oops - undefined instruction|Internal error: undefined instruction|\b(?:illegal operation|operation exception): [0-9a-f]{4} ilc|Oops - illegal instruction \[#",
        "undefined-instruction",
        "undefined instruction in {f}",
        role="die",
        trap=True,
    ),
    _t(
        "die",
        r"Internal error: (?:Oops - )?(BRK handler|BTI|CFI|FPAC|SP/PC alignment|synchronous external abort|[^:]{1,60}): [0-9a-f]+ ?\[#\d+\]",
        "other",
        "Internal error: {0} in {f}",
        role="die",
        trap=True,
    ),
    _t("die", r"Oops: general protection fault", "gpf", "general protection fault in {f}", role="die", trap=True),
    _t(
        "die",
        r"Internal error: : ?[0-9a-f]+ \[#\d+\]|\bOops(?:\[#|:| - | \[#).{0,120}\[?#?\d",
        "paging-fault",
        "Oops in {f}",
        role="die",
        trap=True,
    ),
    _t(
        "die",
        r"^((?:int3|debug|bounds|overflow|alignment check|segment not present|invalid TSS|coprocessor \w+|simd exception|control protection|specification exception|addressing exception|protection exception|privileged operation|monitor event|data exception|fixpoint divide exception|unexpected \w+|[a-z][a-z ]{2,40} exception)): [0-9a-f]{4} (?:ilc:\d )?\[#\d+\]",
        "other",
        "{0} in {f}",
        role="die",
        trap=True,
    ),
    _t(
        "die",
        r"^Unexpected kernel BRK exception at EL1|Bad mode in .{1,40} handler detected|SError Interrupt on CPU\d+",
        "other",
        "unexpected exception in {f}",
        trap=True,
    ),
    _t("die", r"^Unhandled fault: .{1,60} \(0x[0-9a-f]+\) at 0x", "paging-fault", "unhandled fault in {f}", trap=True),
    _t(
        "oops-counter",
        r"^[A-Za-z][\w :,.()/-]{2,80} \[#\d{1,4}\](?: |$)",
        "other",
        "Oops in {f}",
        role="die",
        trap=True,
    ),
    # Locks (kernel/locking/lockdep.c).
    _t(
        "deadlock",
        LOCKDEP
        + r"(?:possible circular locking dependency|possible recursive locking|possible irq lock inversion dependency|\w+-safe -> \w+-unsafe lock order) detected?",
        "lockdep",
        "possible deadlock in {f}",
        "at",
    ),
    _t("lock-state", LOCKDEP + r"inconsistent lock state", "lockdep", "inconsistent lock state in {f}", "at"),
    _t("unlock", LOCKDEP + r"bad unlock balance detected", "lockdep", "BUG: bad unlock balance in {f}", "at"),
    _t("contention", LOCKDEP + r"bad contention detected", "lockdep", "BUG: bad contention in {f}", "at"),
    _t("freed-lock", LOCKDEP + r"held lock freed", "lockdep", "BUG: held lock freed in {f}", "at"),
    _t(
        "user-lock",
        LOCKDEP + r"lock held when returning to user space",
        "lockdep",
        "lock held when returning to user space in {f}",
        "at",
        bare=True,
    ),
    _t("held-lock", LOCKDEP + r".{0,60}still has locks held", "lockdep", "BUG: still has locks held in {f}", "at"),
    _t(
        "wait-context",
        LOCKDEP + r"Invalid wait context|^\[ BUG: Invalid wait context",
        "lockdep",
        "BUG: Invalid wait context in {f}",
    ),
    _t("nested-lock", LOCKDEP + r"Nested lock was not taken", "lockdep", "Nested lock was not taken in {f}"),
    _t(
        "rcu-usage",
        LOCKDEP + r"[Ss]uspicious RCU usage|\[ INFO: suspicious RCU usage",
        "lockdep",
        "WARNING: suspicious RCU usage in {f}",
        "rcu-usage",
    ),
    _t(
        "lock-key",
        r"INFO: trying to register non-static key",
        "lockdep",
        "INFO: trying to register non-static key in {f}",
    ),
    _t(
        "lockdep-limit", B + r"(MAX_LOCK\w+|MAX_STACK_TRACE_ENTRIES) too low", "lockdep", "BUG: {0} too low!", bare=True
    ),
    # Time.
    _t("soft-lockup", r"BUG: soft lockup", "soft-lockup", "BUG: soft lockup in {f}", "stall"),
    _t(
        "hard-lockup",
        r"[Ww]atchdog detected hard LOCKUP|self-detected hard LOCKUP|detected [Hh]ard LOCKUP on|CPU \d+ Hard LOCKUP|Watchdog CPU:\d+ Hard LOCKUP",
        "hard-lockup",
        "hard lockup in {f}",
        "stall",
    ),
    _t(
        "hung-task",
        r"INFO: task (\S.{0,40}?:\d+) (?:<\w+> )?blocked for more than \d+ seconds",
        "hung-task",
        "INFO: task hung in {f}",
        "hang",
    ),
    _t(
        "hung-task",
        r"INFO: task (\S.{0,40}?:\d+) can't die for more than \d+ seconds",
        "hung-task",
        "INFO: task can't die in {f}",
        "hang",
    ),
    _t(
        "rcu-stall",
        r"INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls?|INFO: rcu\w* (?:detected )?stalls? on ",
        "rcu-stall",
        "INFO: rcu detected stall in {f}",
        "stall",
    ),
    _t("wq-lockup", B + r"workqueue lockup", "other", "BUG: workqueue lockup", "none", bare=True),
    # Where one must not sleep, and other misuse (kernel/sched/core.c, lib/smp_processor_id.c, kernel/locking/spinlock_debug.c).
    _t("atomic", B + r"scheduling while atomic", "bug", "BUG: scheduling while atomic in {f}"),
    _t(
        "sleeping",
        B + r"sleeping function called from invalid context",
        "bug",
        "BUG: sleeping function called from invalid context in {f}",
    ),
    _t("preemptible", B + r"using ([a-z_]+)\(\) in preemptible", "bug", "BUG: using {0}() in preemptible code in {f}"),
    _t(
        "wq-leak",
        B + r"workqueue leaked (?:lock or atomic|atomic, lock or RCU)",
        "bug",
        "BUG: workqueue leaked lock or atomic in {f}",
        "last",
        bare=True,
    ),
    _t("spinlock", B + r"(spinlock|rwlock|rt_spinlock) ([a-z ]+?)(?: on CPU|,|$)", "bug", "BUG: {0} {1} in {f}"),
    # Memory.
    _t("page-state", B + r"Bad page state", "bug", "BUG: Bad page state in {f}"),
    _t("page-map", B + r"Bad page map", "bug", "BUG: Bad page map in {f}"),
    _t("mm-counter", B + r"(Bad rss-counter state|non-zero \w+ on freeing mm)", "bug", "BUG: {0}", "none", bare=True),
    _t(
        "dentry",
        B + r"Dentry .{1,120} still in use \(-?\d+\) \[unmount of ([^\]]+)\]",
        "bug",
        "BUG: Dentry still in use [unmount of {0}]",
    ),
    _t("slab", r"^BUG (?=[a-zA-Z])([\w:.-]+)(?: \([^)]*\))?: (\S.{2,60})", "bug", "BUG: {1} in {f}"),
    _t("leak", B + r"memory leak", "other", "memory leak in {f}", "leak"),
    _t(
        "leak",
        r"^unreferenced (?:percpu )?object 0x[0-9a-f]+ \(size",
        "other",
        "memory leak in {f}",
        "leak",
        role="die",
    ),
    _t("any-bug", r"^" + r"(?:\w{2,20}: )?BUG: (\S.{2,100})", "bug", "BUG: {0}"),
    # Warnings, in each format: since v3.16 with CPU and PID, before that with a place only, since v6.19 the other way round.
    _t(
        "odebug",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*lib/debugobjects\.c\S* debug_",
        "warning",
        "WARNING: ODEBUG bug in {f}",
    ),
    _t(
        "refcount",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*lib/refcount\.c\S* refcount_|WARNING: lib/refcount\.c:\d+ at",
        "warning",
        "WARNING: refcount bug in {f}",
    ),
    _t(
        "kobject",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*lib/kobject\.c\S* kobject_",
        "warning",
        "WARNING: kobject bug in {f}",
    ),
    _t(
        "proc",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*fs/proc/generic\.c\S* proc_register",
        "warning",
        "WARNING: proc registration bug in {f}",
    ),
    _t(
        "usercopy-warn",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*mm/usercopy\.c\S* usercopy_warn",
        "warning",
        "WARNING: bad usercopy in {f}",
    ),
    _t(
        "locking",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*kernel/locking/lockdep\.c\S* \w*lock_",
        "warning",
        "WARNING: locking bug in {f}",
    ),
    _t(
        "kmalloc",
        r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S*mm/\w+\.c:\d+ \w*(?:kv?|v|__)malloc",
        "warning",
        "WARNING: kmalloc bug in {f}",
    ),
    _t("urb", r"WARNING: (?:CPU: \d+ PID: \d+ )?at \S+ usb_submit_urb", "warning", "WARNING in {f}/usb_submit_urb"),
    _t(
        "warning",
        r"(?<![A-Za-z_])WARNING: (?:CPU: ?\d+ PID: ?\d+ )?at (\S+?:\d+) ([\w.$]+)(?:\+0x|\b)",
        "warning",
        "WARNING in {f}",
        "named",
    ),
    _t("warning", r"(?<![A-Za-z_])WARNING: (\S+?\.[chS]:\d+) at ([\w.$]+)\+0x", "warning", "WARNING in {f}", "named"),
    _t("warning", r"(?<![A-Za-z_])WARNING: (?:CPU: ?\d+ PID: ?\d+ )?at (\S+)", "warning", "WARNING in {f}"),
    _t("warning", r"^WARNING: CPU: ?\d", "warning", "WARNING in {f}"),
    _t(
        "stack-regs",
        r"WARNING: kernel stack regs at [0-9a-f]+ in \S+ has bad '(\w+)' value",
        "warning",
        "WARNING: kernel stack regs has bad '{0}' value",
        "none",
        bare=True,
    ),
    _t(
        "stack-frame",
        r"WARNING: kernel stack frame pointer at [0-9a-f]+ in \S+ has bad value",
        "warning",
        "WARNING: kernel stack frame pointer has bad value",
        "none",
        bare=True,
    ),
    _t(
        "stack-recursion",
        r"WARNING: (stack recursion|can't (?:access|dereference) (?:iret )?registers)",
        "warning",
        "WARNING: {0}",
        bare=True,
    ),
    # Hardware, and the end.
    _t(
        "mce",
        r"\[Hardware Error\]:.{0,40}Machine Check(?: Exception)?: |Machine check in kernel mode|CPU \d+: Machine Check Exception|Caused by \(from MCSR=",
        "other",
        "Machine check: the hardware reports an error",
        "none",
        bare=True,
    ),
    _t(
        "ghes",
        r"\[Hardware Error\]: event severity: fatal",
        "other",
        "Fatal hardware error reported by the firmware",
        "none",
        bare=True,
    ),
    _t(
        "netdevice",
        r"unregister_netdevice: waiting for (\S+) to become free",
        "other",
        "unregister_netdevice: waiting for DEV to become free",
        "none",
        bare=True,
    ),
    _t(
        "panic-stack",
        r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: ([\w.$]+)",
        "panic",
        "kernel panic: stack is corrupted in {f}",
        "named",
        "panic",
    ),
    _t(
        "panic-stack-end",
        r"Kernel panic - not syncing: corrupted stack end detected inside scheduler",
        "panic",
        "kernel panic: corrupted stack end in {f}",
        "stall",
        "panic",
    ),
    _t(
        "panic-init",
        r"Kernel panic - not syncing: Attempted to kill (init|the idle task)!",
        "panic",
        "kernel panic: Attempted to kill {0}!",
        "stack",
        "panic",
    ),
    _t(
        "panic-mce",
        r"Kernel panic - not syncing: (.{0,40}[Mm]achine check.{0,40})",
        "panic",
        "kernel panic: {0} (a hardware error)",
        "none",
        "panic",
    ),
    _t("panic", r"Kernel panic - not syncing: ?(.{0,120})", "panic", "kernel panic: {0}", "stack", "panic"),
)

# Panics that only carry out what an earlier report began.
CONSEQUENCE = re.compile(
    r"Kernel panic - not syncing: (?:Fatal exception|panic_on_warn set|hung_task: blocked tasks|softlockup: hung tasks"
    r"|Hard LOCKUP|hung tasks|RCU Stall|kernel: panic_on_warn set|UBSAN: panic_on_warn|KASAN: panic_on_warn|.{0,30}panic_on_warn set"
    r"|Aiee, killing interrupt handler|Attempted to kill|Machine halted|kernel stack overflow|Oops|Fatal hardware error"
    r"|Unrecoverable|CHECK_DATA_CORRUPTION)"
)

# A cheap look that rules out nearly every line: words that begin with few letters.
GATE = re.compile(
    r"BUG|WARNING: |INFO: |UBSAN: |Unable to handle|nable to handle kernel|Internal error: |Insufficient stack"
    r"|general protection fault|double fault|divide error|stack segment|tack overflow|stack-overflow|invalid opcode"
    r"|Oops|\[#\d|Kernel panic|LOCKUP|Hardware Error\]|Machine [Cc]heck|unregister_netdevice: w|unreferenced "
    r"|Unexpected kernel BRK|Bad mode in|SError Int|Unhandled fault"
)
# What looks like one and is none.
NOT_MEANT = re.compile(
    r"---\[ end Kernel panic|INFO: lockdep is turned off|INFO: Stall ended before|INFO: NMI handler|INFO: recovery required"
    r"|^traps: |^\w[\w./-]*\[\d+\]: |BUG: no syscalls can create|WARNING: workqueue cpumask|lockdep: fixing up"
    r"|took too long|DEBUG: |Modules linked in|^Kernel command line|^Command line|\bBUG: Rejecting|printk: .{0,40}messages dropped"
)


@lru_cache(maxsize=1 << 14)
def find(text: str) -> Match | None:
    """The trigger in a line, or `None`."""
    if not GATE.search(text):
        return None
    if NOT_MEANT.search(text):
        return None
    text = text[:1000]
    for trigger in TRIGGERS:
        match = trigger.pattern.search(text)
        if match:
            return Match(trigger, match.groups())
    return None
