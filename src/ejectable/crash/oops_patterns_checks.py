# SPDX-License-Identifier: GPL-2.0-or-later
"""The wordings of the kernel's checks of itself: locks, time, memory, WARN(), hardware; and of the panic at the end."""

from ejectable.crash.oops_pattern import BUG, OopsPattern, oops_pattern

__all__ = ["CHECKS"]

LOCKDEP = r"(?<![A-Za-z_])(?:WARNING|INFO|BUG): "
SAID = r"(?<![A-Za-z_])(WARNING|INFO|BUG): "  # the same, where the title repeats it
# `WARNING: CPU: 1 PID: 2 at file.c:3 function`; since v6.19 `WARNING: [condition] file.c:3 at function`.
WARNED = r"(?<![A-Za-z_])WARNING: "
AT = WARNED + r"(?:CPU: ?\d+ PID: ?\d+ )?at "
CONDITION = r"(?:\[.{0,200}?\] )?"


def _warned(file: str, function: str, *, alone: bool = True) -> str:
    """WARN() in a file, by a function, in either order; the file may say it `alone` where no symbol was found."""
    unnamed = "|0x" if alone else ""
    return rf"{AT}\S*{file}\S* {function}|{WARNED}{CONDITION}\S*{file}:\d+ at (?:{function}{unnamed})"


CHECKS: tuple[OopsPattern, ...] = (
    # Locks (kernel/locking/lockdep.c).
    oops_pattern(
        "deadlock",
        LOCKDEP
        + (
            r"(?:possible circular locking dependency|possible recursive locking|"
            r"possible irq lock inversion dependency|\w+-safe -> \w+-unsafe lock order) detected?"
        ),
        "lockdep",
        "possible deadlock in {f}",
        "at",
    ),
    oops_pattern("lock-state", LOCKDEP + r"inconsistent lock state", "lockdep", "inconsistent lock state in {f}", "at"),
    oops_pattern("unlock", SAID + r"bad unlock balance detected", "lockdep", "{0}: bad unlock balance in {f}", "at"),
    oops_pattern("contention", SAID + r"bad contention detected", "lockdep", "{0}: bad contention in {f}", "at"),
    oops_pattern("freed-lock", SAID + r"held lock freed", "lockdep", "{0}: held lock freed in {f}", "at"),
    oops_pattern(
        "user-lock",
        LOCKDEP + r"lock held when returning to user space",
        "lockdep",
        "lock held when returning to user space in {f}",
        "at",
        bare=True,
    ),
    oops_pattern(
        "held-lock", SAID + r".{0,60}still has locks held", "lockdep", "{0}: still has locks held in {f}", "at"
    ),
    oops_pattern(
        "wait-context",
        LOCKDEP + r"Invalid wait context|^\[ BUG: Invalid wait context",
        "lockdep",
        "BUG: Invalid wait context in {f}",
    ),
    oops_pattern(
        "nested-lock", LOCKDEP + r"Nested lock was not taken", "lockdep", "Nested lock was not taken in {f}", "at"
    ),
    oops_pattern(
        "rcu-usage",
        LOCKDEP + r"[Ss]uspicious RCU usage|\[ INFO: suspicious RCU usage",
        "lockdep",
        "WARNING: suspicious RCU usage in {f}",
        "rcu-usage",
    ),
    oops_pattern(
        "lock-key",
        r"INFO: trying to register non-static key",
        "lockdep",
        "INFO: trying to register non-static key in {f}",
    ),
    oops_pattern(
        "lockdep-limit",
        BUG + r"(MAX_LOCK\w+|MAX_STACK_TRACE_ENTRIES) too low",
        "lockdep",
        "BUG: {0} too low in {f}",
        bare=True,
    ),
    # Time.
    oops_pattern("soft-lockup", r"BUG: soft lockup", "soft-lockup", "BUG: soft lockup in {f}", "stall"),
    oops_pattern(
        "hard-lockup",
        (
            r"[Ww]atchdog detected hard LOCKUP|self-detected hard LOCKUP|detected [Hh]ard LOCKUP on|"
            r"CPU \d+ Hard LOCKUP|Watchdog CPU:\d+ Hard LOCKUP"
        ),
        "hard-lockup",
        "hard lockup in {f}",
        "stall",
    ),
    oops_pattern(
        "hung-task",
        r"(?:INFO: task (\S.{0,40}?)|^.{0,40}):\d+ (?:<\w+> )?blocked (?:in I/O wait )?for more than \d+ seconds",
        "hung-task",
        "INFO: task hung in {f}",
        "hang",
    ),
    oops_pattern(
        "hung-task",
        r"INFO: task (\S.{0,40}?):\d+ can't die for more than \d+ seconds",
        "hung-task",
        "INFO: task can't die in {f}",
        "hang",
    ),
    oops_pattern(
        "hung-owner",
        r"INFO: task (\S.{0,40}?):\d+(?: <\w{1,10}>)? (?:is )?blocked on an? [\w -]{1,30}(?: likely|, but the owner)",
        "hung-task",
        "INFO: task hung",
        "hang",
        bare=True,
    ),
    oops_pattern(
        "task-state",
        r"^ {0,4}task:(\S.{0,40}?) {1,20}state:D\b",
        "hung-task",
        "task waits in {f}",
        "hang",
    ),
    oops_pattern(
        "rcu-stall",
        r"INFO: rcu\w* (?:self-)?detected (?:expedited )?stalls?|INFO: rcu\w* (?:detected )?stalls? on ",
        "rcu-stall",
        "INFO: rcu detected stall in {f}",
        "stall",
    ),
    oops_pattern("wq-lockup", BUG + r"workqueue lockup", "other", "BUG: workqueue lockup in {f}", "last", bare=True),
    # Where one must not sleep, and other misuse (kernel/sched/core.c, lib/smp_processor_id.c,
    # kernel/locking/spinlock_debug.c).
    oops_pattern("atomic", BUG + r"scheduling while atomic", "bug", "BUG: scheduling while atomic in {f}"),
    oops_pattern(
        "sleeping",
        BUG + r"sleeping function called from invalid context",
        "bug",
        "BUG: sleeping function called from invalid context in {f}",
    ),
    oops_pattern(
        "preemptible", BUG + r"using ([a-z_]+)\(\) in preemptible", "bug", "BUG: using {0}() in preemptible code in {f}"
    ),
    oops_pattern(
        "wq-leak",
        BUG + r"workqueue leaked (?:lock or atomic|atomic, lock or RCU)",
        "bug",
        "BUG: workqueue leaked lock or atomic in {f}",
        "last",
        bare=True,
    ),
    oops_pattern(
        "spinlock", BUG + r"(spinlock|rwlock|rt_spinlock) ([a-z ]+?)(?: on |,|$)", "bug", "BUG: {0} {1} in {f}"
    ),
    # Memory.
    oops_pattern("page-state", BUG + r"Bad page (state|cache)", "bug", "BUG: Bad page {0} in {f}"),
    oops_pattern("page-map", BUG + r"Bad page map", "bug", "BUG: Bad page map in {f}"),
    oops_pattern(
        "mm-counter", BUG + r"(Bad rss-counter state|non-zero \w+ on freeing mm)", "bug", "BUG: {0}", "none", bare=True
    ),
    oops_pattern(
        "dentry",
        BUG + r"Dentry .{1,120} still in use(?: \(-?\d+\) \[(unmount) of)?",
        "bug",
        "BUG: Dentry still in use in {0}",
        "none",
        bare=True,
    ),
    oops_pattern(
        "busy-inodes",
        r"^VFS: (Busy inodes after unmount|Close: file count is (?:0|zero))",
        "bug",
        "VFS: {0} (use-after-free)",
        "none",
        bare=True,
    ),
    oops_pattern("slab", r"^BUG (?=[a-zA-Z])([\w:.-]+)(?: \([^)]*\))?: (\S.{2,60})", "bug", "BUG: {1} in {f}"),
    oops_pattern("leak", BUG + r"memory leak", "other", "memory leak in {f}", "leak"),
    oops_pattern(
        "leak",
        r"^unreferenced (?:percpu )?object(?: 0x[0-9a-f]+ \(size|$)",
        "other",
        "memory leak in {f}",
        "leak",
        role="die",
    ),
    oops_pattern(
        "slab", r"^INFO: (Freed|Allocated) in ([\w.]+)\+0x", "bug", "slab corruption in {f} (its beginning is missing)"
    ),
    oops_pattern("any-bug", r"^" + r"(?:\w{2,20}: )?BUG: (\S.{2,100})", "bug", "BUG: {0}"),
    # Warnings, in each format: since v3.16 with CPU and PID, before that with a place only, since v6.19 the other
    # way round.
    oops_pattern(
        "odebug",
        _warned(r"lib/debugobjects\.c", r"(?:debug_|\w*object)"),
        "warning",
        "WARNING: ODEBUG bug in {f}",
    ),
    oops_pattern("refcount", _warned(r"lib/refcount\.c", r"refcount_"), "warning", "WARNING: refcount bug in {f}"),
    oops_pattern("kobject", _warned(r"lib/kobject\.c", r"kobject_"), "warning", "WARNING: kobject bug in {f}"),
    oops_pattern(
        "proc", _warned(r"fs/proc/generic\.c", r"proc_register"), "warning", "WARNING: proc registration bug in {f}"
    ),
    oops_pattern(
        "usercopy-warn", _warned(r"mm/usercopy\.c", r"usercopy_warn"), "warning", "WARNING: bad usercopy in {f}"
    ),
    oops_pattern(
        "locking",
        _warned(r"kernel/locking/lockdep\.c", r"\w*lock_"),
        "warning",
        "WARNING: locking bug in {f}",
    ),
    oops_pattern(
        "kmalloc",
        _warned(r"mm/\w+\.c", r"\w*(?:kv?|v|__)malloc", alone=False),
        "warning",
        "WARNING: kmalloc bug in {f}",
    ),
    oops_pattern(
        "urb",
        rf"{AT}\S+ usb_submit_urb|{WARNED}{CONDITION}\S+ at usb_submit_urb",
        "warning",
        "WARNING in {f}/usb_submit_urb",
    ),
    oops_pattern("warning", AT + r"(\S+?:\d+) ([\w.$]+)(?:\+0x|\b)", "warning", "WARNING in {f}", "named"),
    oops_pattern(
        "warning", WARNED + CONDITION + r"(\S+?\.[chS]:\d+) at ([A-Za-z_][\w.$]+)", "warning", "WARNING in {f}", "named"
    ),
    oops_pattern("warning", WARNED + CONDITION + r"\S+?\.[chS]:\d+ at 0x", "warning", "WARNING in {f}"),
    oops_pattern("warning", AT + r"\S+", "warning", "WARNING in {f}"),
    oops_pattern("warning", r"^WARNING: CPU: ?\d", "warning", "WARNING in {f}"),
    oops_pattern(
        "stack-regs",
        r"WARNING: kernel stack regs at \S{1,40} in \S+ has bad '?(\w{0,20})'? ?value",
        "warning",
        "WARNING: kernel stack regs has bad '{0}' value",
        "none",
        bare=True,
    ),
    oops_pattern(
        "stack-frame",
        r"WARNING: kernel stack frame pointer at \S{1,40} in \S+ has bad value",
        "warning",
        "WARNING: kernel stack frame pointer has bad value",
        "none",
        bare=True,
    ),
    oops_pattern(
        "stack-recursion",
        r"WARNING: (stack recursion|can't (?:access|dereference) (?:iret )?registers)",
        "warning",
        "WARNING: {0}",
        bare=True,
    ),
    # Hardware, and the end.
    oops_pattern(
        "mce",
        (
            r"\[Hardware Error\]:.{0,40}Machine Check(?: Exception)?: |Machine check in kernel mode|"
            r"CPU \d+: Machine Check Exception|Caused by \(from MCSR="
        ),
        "other",
        "Machine check: the hardware reports an error",
        "none",
        bare=True,
    ),
    oops_pattern(
        "ghes",
        r"\[Hardware Error\]: event severity: fatal",
        "other",
        "Fatal hardware error reported by the firmware",
        "none",
        bare=True,
    ),
    oops_pattern(
        "netdevice",
        r"unregister_netdevice: waiting for (\S+) to become free",
        "other",
        "unregister_netdevice: waiting for DEV to become free",
        "none",
        bare=True,
    ),
    oops_pattern(
        "panic-stack",
        r"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: ([\w.$]+)",
        "panic",
        "kernel panic: stack is corrupted in {f}",
        "named",
        "panic",
    ),
    oops_pattern(
        "panic-stack-end",
        r"Kernel panic - not syncing: corrupted stack end detected inside scheduler",
        "panic",
        "kernel panic: corrupted stack end in {f}",
        "stall",
        "panic",
    ),
    oops_pattern(
        "panic-overflow",
        r"Kernel panic - not syncing: kernel stack overflow",
        "stack-overflow",
        "kernel stack overflow in {f}",
        "stall",
        "panic",
    ),
    oops_pattern(
        "panic-init",
        r"Kernel panic - not syncing: Attempted to kill (init|the idle task)!",
        "panic",
        "kernel panic: Attempted to kill {0}!",
        "stack",
        "panic",
    ),
    oops_pattern(
        "panic-mce",
        r"Kernel panic - not syncing: (.{0,40}[Mm]achine check.{0,40})",
        "panic",
        "kernel panic: {0} (a hardware error)",
        "none",
        "panic",
    ),
    oops_pattern("panic", r"Kernel panic - not syncing: ?(.{0,120})", "panic", "kernel panic: {0}", "stack", "panic"),
)
