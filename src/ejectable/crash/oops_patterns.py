# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines with which the kernel begins to complain, from 3.10 to today, on every architecture.

Wordings are tried in order, the special before the general. Patterns run on a line without its prefix and have no
nested repetition: their time is linear.
"""

import re
from functools import cache, lru_cache

from ejectable.crash.oops_pattern import Match, OopsPattern

__all__ = ["CAUSED", "CONSEQUENCE", "GATE", "NOT_MEANT", "SUSPICIOUS", "find", "speaks_of_a_crash"]

# Panics that only carry out what an earlier report began.
CONSEQUENCE = re.compile(
    r"Kernel panic - not syncing: (?:Fatal exception|panic_on_warn set|hung_task: blocked tasks|softlockup: hung tasks"
    r"|Hard LOCKUP|hung tasks|RCU Stall|kernel: panic_on_warn set|UBSAN: panic_on_warn|"
    r"KASAN: panic_on_warn|.{0,30}panic_on_warn set"
    r"|kmsan\.panic|CPU exception|.{0,60}panic_on_\w{1,20} set"
    r"|Aiee, killing interrupt handler|Attempted to kill|Machine halted|kernel stack overflow|Oops|Fatal hardware error"
    r"|Unrecoverable|CHECK_DATA_CORRUPTION|scheduling while atomic)"
)

# Of these, the panics that an Oops leads to.
CAUSED = re.compile(r"Kernel panic - not syncing: (?:Fatal exception|Aiee, killing interrupt handler|Oops\b)")

# A cheap look that rules out nearly every line: words that begin with few letters.
GATE = re.compile(
    r"BUG|WARNING: |INFO: |UBSAN: |state:D| blocked (?:for|in I)|nable to handle kernel|Internal error: "
    r"|Insufficient stack|general protection fault|double fault|divide.error|stack segment|tack overflow|stack-overflow"
    r"|invalid opcode|Oops|\[#\d|Kernel panic|LOCKUP|Hardware Error\]|Machine [Cc]heck|unregister_netdevice: w"
    r"|unreferenced |Unexpected kernel BRK|Bad mode in|SError Int|Unhandled fault|Alignment trap"
    r"|rust_kernel: p|VFS: [BC]"
)
# What looks like one and is none.
NOT_MEANT = re.compile(
    r"---\[ end Kernel panic|INFO: lockdep is turned off|INFO: Stall ended before|"
    r"INFO: NMI handler|INFO: recovery required"
    r"|^traps: (?!PANIC: )|^\w[\w./-]*\[\d+\]: |BUG: no syscalls can create|WARNING: workqueue cpumask"
    r"|lockdep: fixing up|took too long|DEBUG: |Modules linked in|^Kernel command line|^Command line|"
    r"\bBUG: Rejecting|printk: .{0,40}messages dropped"
    # The heading of a mail or a bug report that quotes a log: a crash's title, which the kernel itself never prints.
    r"|^(?:TITLE|Title|ALT|Subject|Summary|Re): "
    r"|^(?:BUG|INFO|WARNING|UBSAN): (?!K[A-Z]+: )[^\[#]{3,80} in [A-Za-z_]\w*(?: \(\d{1,3}\))?$"
)

# Words of a report. A line with one of them that is in no report may be what is left of one.
SUSPICIOUS = re.compile(
    r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]|Call [Tt]race|\b[RE]IP: |\bOops\b|\bBUG: |NULL pointer|general protection fault"
    r"|[Kk]ernel panic|---\[ end trace|^ *</?TASK>|exited with (?:preempt_count|irqs disabled)"
)


def speaks_of_a_crash(text: str) -> bool:
    """Whether a line that is in no report has words of one."""
    if "---[ end Kernel panic" in text:  # begins nothing, and ends what a crash began
        return True
    if not SUSPICIOUS.search(text):
        return False
    return len(text) > LONG or not NOT_MEANT.search(text)


LONG = 1200  # characters: no line of the kernel is that long; several are in it, of which one may be harmless


@cache
def _patterns() -> tuple[OopsPattern, ...]:
    """All wordings. Their patterns are compiled when the first line passes the gate."""
    from ejectable.crash.oops_patterns_checks import CHECKS
    from ejectable.crash.oops_patterns_traps import TRAPS

    return (*TRAPS, *CHECKS)


@lru_cache(maxsize=1 << 14)
def find(text: str) -> Match | None:
    """The pattern that a line matches, or `None`."""
    if not GATE.search(text):
        return None
    if NOT_MEANT.search(text):
        return None
    text = text[:1000]
    for pattern in _patterns():
        match = pattern.regex.search(text)
        if match:
            return Match(pattern, match.groups())
    return None
