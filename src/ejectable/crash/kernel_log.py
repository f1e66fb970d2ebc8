# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether bytes are a kernel's log at all; if not, what they seem to be, and how to get a log."""

import re
from collections.abc import Iterator, Sequence

from ejectable.crash.lines import clean, read
from ejectable.crash.lost import is_benign
from ejectable.crash.oops_patterns import GATE, NOT_MEANT, find
from ejectable.errors import BadInput

__all__ = ["SAMPLE", "NoLog", "first_pattern", "is_kernel_log", "left_unread", "refuse", "unread_line"]

SAMPLE = 1 << 17  # bytes that are looked at
HINT = "Give it the output of dmesg, journalctl -k, a serial console, or a file from /sys/fs/pstore."

# One of these is enough: printk's time, the tag of a syslog daemon, a record of /dev/kmsg, a pstore part, a frame.
KERNEL = re.compile(
    rb"\[ {0,9}\d{1,9}\.\d{6}\]|^(?:<\d{1,3}>)?\[ {0,9}\d{1,9}\.\d{3,9}\]|\d\d:\d\d.{0,80} kernel: "
    rb"|Linux version \d{1,3}\.\d{1,3}\S{0,60} \("
    rb"|^(?:<\d{1,3}>|\d{1,5},\d{1,20},\d{1,20},)|^[A-Za-z]{2,12}#\d{1,6} Part\d|\w{3}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
    rb"|^\[[A-Z][a-z]{2} (?:[A-Z][a-z]{2} )?[ \d]\d \d\d:|^\d{4}-\d\d-\d\d[T ][\d:]{8},\d{6}[+-]"
    rb"|^\[ {0,9}[<+] {0,9}\d{1,9}\.\d{6}|\"_TRANSPORT\" ?: ?\"kernel\"|^_TRANSPORT=kernel|^kern {0,2}:[a-z]{3,6}"
    rb"|^\[<[0-9a-f]{1,16}>\] |\] exited with (?:preempt_count|irqs disabled)",
    re.MULTILINE,
)
# A console without times: several of these, which begin the lines of a boot.
SPOKEN = re.compile(
    rb"^(?:ACPI: |PCI: |pci 0|CPU\d?: |EXT4-fs|XFS |SCSI |sd \d|ata\d|usb \d|usbcore: |NET: |TCP: |UDP: |random: |"
    rb"Memory: |Freeing |Booting |BIOS-|BIOS-e820|clocksource: |Command line: |Kernel command line: |x86/|smp: |"
    rb"tsc: |virtio|Run /|Trying to unpack rootfs|Zone ranges|Calibrating delay|audit: type=)",
    re.MULTILINE,
)
ENOUGH_SPOKEN = 3
# What stands in reports alone, wherever in a line and in whatever wrapping: frames, heads and ends of traces.
REPORTED = re.compile(
    r"\w\w\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}|Call [Tt]race:|</?TASK>|---\[ end (?:trace|Kernel panic)"
    r"|\b[RE]IP: [0-9(\[]|\bOops: [0-9a-f]{4}|NULL pointer dereference,? (?:at|address: )(?: |0)"
    r"|\bBUG: (?:kernel NULL|unable to handle)|#PF\b|\bPGD [0-9a-f]|\bCR2: [0-9a-f]{8}|\b[RE]SP: 00[0-9a-f]{2}:"
)
# One of these is in each of them, and they are found fast.
WITHIN = ("+0x", "all ", "TASK>", "[ end ", "IP: ", "Oops: ", "NULL", "BUG: ", "#PF", "PGD ", "CR2: ", "SP: 0")
SMALL = 1 << 22  # bytes of a log that somebody may have joined
DAEMON = re.compile(r"[\w./-]\[\d{1,9}\]: [^\n]*\Z")  # a program speaks of a crash: `ops[77]: `
LINE = 240  # characters of it
WORDS, BEHIND = 2, 6  # of a report, before the first that was read and behind it, where some are said again
BENIGN_LINES = 60  # that a trace may be long which somebody asked for
READ = 1 << 14  # characters of a line that the reader looks at
BEFORE = 8192  # characters before it in which something may say that somebody asked for the trace
GATE_BYTES = re.compile(GATE.pattern.encode())

PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"%PDF")
MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"KDUMP   ", "a memory dump (makedumpfile)", "makedumpfile --dump-dmesg {path} dmesg.txt"),
    (b"makedumpfile", "a memory dump (makedumpfile, flattened)", "makedumpfile -R vmcore < {path}"),
    (b"DISKDUMP", "a memory dump (diskdump)", "makedumpfile --dump-dmesg {path} dmesg.txt"),
    (b"PAGEDU", "a memory dump of Windows", ""),
    (b"LPKSHHRH", "a journal of systemd", "journalctl -k --file {path} > log.txt"),
    (b"SQLite format 3", "a database (SQLite)", ""),
    (b"!<arch>\n", "a package (.deb) or a static library", ""),
    (b"\xed\xab\xee\xdb", "a package (.rpm)", ""),
    (b"MZ", "a program or a kernel", "ejectable kernel {path}"),
)  # fmt: skip
LOOKS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\A(?:[\w.+-]{1,40}:[^:\n]{0,20}:\d{1,10}:\d{1,10}:[^\n]{0,200}\n){2}"), "a table of users"),
    (re.compile(rb"^\d{4}-\d\d-\d\d [\d:]{8} (?:status|install|configure|upgrade|startup) ", re.MULTILINE),
     "the log of dpkg"),
    (re.compile(rb"\A\s{0,80}(?:<!DOCTYPE|<html|<\?xml)", re.IGNORECASE), "a web page or XML without a kernel's lines"),
    (re.compile(rb"\A#!"), "a script"),
    (re.compile(rb"^(?:#{1,6} \S|```)", re.MULTILINE), "a document (Markdown) that quotes no kernel log"),
    (re.compile(rb"\A\s{0,80}(?:\{\s{0,80}\"|\[\s{0,80}[{\"])"), "JSON in which no field holds a kernel log"),
    (re.compile(rb"^(?:\w{3} [ \d]\d |\d{4}-\d\d-\d\d[T ])[\d:]{8}\S{0,20} \S{1,80} [^\s:]{1,60}: ", re.MULTILINE),
     "a log of services, in which no line is the kernel's"),
    (re.compile(rb"^(?:\d{1,3}\.){3}\d{1,3} .{0,80}\[\d\d/[A-Z]", re.MULTILINE), "the log of a web server"),
)  # fmt: skip


def is_kernel_log(sample: bytes) -> bool:
    """Whether a line in it is a kernel's."""
    if KERNEL.search(sample) or first_pattern(sample) is not None:
        return True
    return sum(1 for _ in SPOKEN.finditer(sample)) >= ENOUGH_SPOKEN


def first_pattern(data: bytes) -> int | None:
    """Where the first line begins in which the kernel complains, or `None`."""
    position = 0
    while match := GATE_BYTES.search(data, position):
        start = data.rfind(b"\n", max(0, match.start() - 16384), match.start()) + 1
        end = data.find(b"\n", match.end())
        end = len(data) if end < 0 else end
        line = read(clean(data[start : min(end, start + 16384)].decode("utf-8", "replace")))
        if line is not None and any(find(piece) for piece in line.text.split("\n")[:50]):
            return start
        position = end + 1
    return None


def _reported(text: str) -> Iterator[re.Match[str]]:
    for word in WITHIN:
        at = text.find(word)
        while at >= 0:
            if match := REPORTED.search(text, max(0, at - 4), at + 60):
                yield match
            at = text.find(word, at + 1)


def left_unread(data: bytes) -> str | None:
    """The words of a report in a log in which none was read, or `None`. Its wrapping may be one that nobody knows."""
    text = data.replace(b"\0", b"").decode("utf-8", "replace").replace("\\", "")
    for whole in (text, text.replace("\n", "")):  # it may be folded
        for match in _reported(whole):
            before = whole[max(0, match.start() - BEFORE) : match.start()]
            if not is_benign(before) and not DAEMON.search(before[-LINE:]):
                return whole[max(0, match.start() - 40) : match.end() + 40]
    return None


def _words(line: str) -> int:
    return len(REPORTED.findall(line)) if any(word in line for word in WITHIN) else 0


def unread_line(data: bytes, read: Sequence[tuple[int, int]]) -> int | None:
    """The first of several lines that belong to a report, and to none of those that were `read`; or `None`.

    `read` are the first and last line of each, from 1. What is beyond the part of a line that is read counts as well.
    """
    if len(data) > SMALL:
        return None
    first, words, benign = None, 0, 0
    spans = sorted(read)
    begin = spans[0][0] if spans else 0
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        while spans and spans[0][1] < number:
            del spans[0]
        unread = line[READ:] if any(start <= number <= end for start, end in spans) else line
        if is_benign(unread):
            benign = number + BENIGN_LINES
        if number > benign and not NOT_MEANT.search(unread[:READ]) and (found := _words(unread)):
            first, words = first or number, words + found
            if words >= (WORDS if number < begin else BEHIND):
                return first
    return None


class NoLog(BadInput):
    """What was given is no kernel log. `holds_one`: it is a dump that a log can be got out of."""

    def __init__(self, message: str, *, path: str, hint: str, holds_one: bool = False) -> None:
        super().__init__(message, path=path, hint=hint)
        self.holds_one = holds_one


def refuse(sample: bytes, source: str) -> NoLog:
    """The error that says what it is instead, and how to get a log."""
    if not sample:
        return NoLog(
            "empty; expected a kernel log",
            path=source,
            hint="Was it collected with enough rights? Try `dmesg` as root.",
        )
    what, how = _seems(sample)
    hint = how.replace("{path}", source if source != "-" else "FILE") if how else HINT
    return NoLog(f"expected a kernel log, found {what}", path=source, hint=hint, holds_one="memory dump" in what)


def _seems(sample: bytes) -> tuple[str, str]:
    for magic, what, command in MAGIC:
        if sample.startswith(magic):
            return what, f"To get the log out of it: {command}" if command else ""
    if sample.startswith(PICTURES) or sample[4:8] == b"ftyp" or sample[8:12] == b"WEBP":
        return "a picture", "Type what it shows, from the line with “RIP” or “Call Trace” on, into a file."
    if sample.startswith(b"\x7fELF"):
        if sample[16:18] in (b"\x04\x00", b"\x00\x04"):
            command = "makedumpfile --dump-dmesg {path} dmesg.txt, or vmcore-dmesg {path} > dmesg.txt"
            return "a memory dump (vmcore)", f"To get the log out of it: {command}"
        return "a program or a kernel", "To ask whether a kernel has a defect: ejectable kernel {path}"
    strange = sum(sample.count(bytes((byte,))) for byte in (*range(7), *range(14, 24)))
    if strange * 20 > len(sample):
        return "binary data", ""
    return next((what for look, what in LOOKS if look.search(sample)), "text in which no line is a kernel's"), ""
