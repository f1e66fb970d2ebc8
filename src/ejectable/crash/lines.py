# SPDX-License-Identifier: GPL-2.0-or-later
"""One line of a log: what the kernel said, without what the tools on the way put in front of it.

Every collector of kernel messages adds a prefix of its own: printk's time and caller, syslog's header, the
journal's, a terminal's escapes. `read` takes them off and keeps what they say: the time, and who was speaking.
Where a line was written by somebody else than the kernel, and the prefix says so, there is no text.
"""

import json
import re

import msgspec

__all__ = ["PRINTK", "Line", "clean", "host_of", "read"]


class Line(msgspec.Struct):
    """One line, stripped. `caller` is printk's caller, "T123" for a task and "C0" for a CPU; empty if unknown."""

    text: str
    time: str | None = None
    caller: str = ""
    host: str = ""  # who sent it, where the prefix says so


# printk's own prefix: `<6>[   12.345678][    T1] text`; the caller since v5.1 (15ff2069cb7f, "printk: Add caller
# information to printk() output"). This is the fast path, and most of all lines.
PRINTK = re.compile(r"(?:<\d{1,3}>)?\[ *(\d+\.\d{3,9})\] ?(?:\[ *([CT]\d+)\] ?)?")

# The same anywhere in a line: behind a login prompt, a syslog header, a container's or a phone's prefix.
PRINTK_WITHIN = re.compile(r"\[ *(\d{1,9}\.\d{6})\](?:\[ *([CT]\d+)\])? ?")

# Phones: `[   12.345678] (0)[123:kworker/0:1]text` (MediaTek), `[   12.345678]  [3:  swapper/0:    1] text` and
# `I[0:  swapper/0: 1]` (Samsung, Exynos), `c0    123 text` (Spreadtrum).
PHONE = re.compile(
    r"\((\d+)\)\[\d+:[^\]]{1,40}\] ?"
    r"|[A-Z]?\[ ?(\d+): *[^\]]{1,30}: *\d+\] ?"
    r"|c(\d+) +\d{1,6} (?:\([^)]{1,20}\) )?"
)

# /dev/kmsg and extended netconsole: `level,sequence,microseconds,flags[,caller=T1];text`, where netconsole may put
# the release in front (Documentation/ABI/testing/dev-kmsg, Documentation/networking/netconsole.rst).
RECORD = re.compile(r"(?:\d{1,3}\.\d{1,3}[\w.+~-]{0,80},)?\d{1,5},\d{1,20},(\d{1,20}),[^;]{1,120};")
RECORD_CALLER = re.compile(r",caller=([CT]\d+)")

MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
# dmesg -T, -e, -d, --time-format iso; dmesg -x puts `kern  :warn  : ` in front.
DECODED = re.compile(r"(?:kern|user|daemon|syslog|local\d) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ")
DMESG = re.compile(
    r"\[((?:[A-Z][a-z]{2} )" + MONTH + r" [ \d]\d \d\d:\d\d:\d\d \d{4}|" + MONTH + r"[ \d]\d \d\d:\d\d"
    r"| *[+<] *\d+\.\d+>?| *\d+\.\d+ < *\d+\.\d+>)\] ?"
    r"|(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d,\d{6}[+-]\d\d:\d\d) ?"
)

# syslog, RFC 3164 and RFC 5424, and the journal's short forms, which are the same with other times.
SYSLOG = re.compile(
    r"(?:<\d{1,3}>)?(?:1 )?"
    r"(" + MONTH + r" [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d+)?"
    r"|(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: ?[A-Z]{2,5}|Z|[+-]\d\d:?\d\d)?"
    r"|\d{9,10}\.\d{6})"
    r" ([\w.:%-]{0,254}[\w%]) ([^\s:\[\]]{1,100})(?:\[\d{1,10}\])?"
    r"(?:: ?| [\w-]{1,60} [\w-]{1,60} (?:-|\[\w.{0,400}?\]) ?| - )(?:\ufeff)?"
)
KERNEL = frozenset({"kernel", "klogd", "kern"})

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?|[@-Z\\^_=>()*+#][0-9A-B]?)")
PSTORE_LEVEL = re.compile(r"<\d{1,3}>")
JSON_MESSAGE = re.compile(r'\s{0,80}"(?:msg|MESSAGE)"\s{0,8}:\s{0,8}(".*"|\[.*\]),?\Z')


def clean(text: str) -> str:
    """What a terminal would show: no escapes, no NULs, no carriage returns, no byte order mark."""
    if "\x1b" in text:
        text = ESCAPES.sub("", text)
    if "\x00" in text:
        text = text.replace("\x00", "")
    if "\r" in text:
        # A carriage return inside a line starts it again; the longest piece is what somebody wanted to say.
        text = max(text.split("\r"), key=len)
    return text.lstrip("\ufeff")


def read(text: str) -> Line | None:
    """Strip one line, already decoded and cleaned; `None` if its prefix says that the kernel did not write it."""
    match = PRINTK.match(text)
    if match:
        return _after_printk(text, match)
    head = text[:1]
    if head in JSON_HEADS and (JSON_NOISE.match(text) or '"' in text[:80]):
        if JSON_NOISE.match(text):
            return None
        line = _json(text)
        if line is not None:
            return line
    if head in " \t":
        if match := FIELD.match(text):
            # journalctl -o verbose: four spaces, a field's name, its value.
            return read(match.group(2)) if match.group(1) == "MESSAGE" else None
        plain = text.lstrip()
        if plain[:1] in "[<" and (match := PRINTK.match(plain)):
            return _after_printk(plain, match)
        if match := PRINTK_WITHIN.search(text, 0, 240):
            return _after_printk(text, match)
        return Line(text)
    if head.isdigit() and (match := RECORD.match(text)):
        caller = RECORD_CALLER.search(match.group(0))
        microseconds = int(match.group(1))
        time = f"{microseconds // 1000000}.{microseconds % 1000000:06d}"
        return Line(text[match.end() :], time, caller.group(1) if caller else "")
    if match := DECODED.match(text):
        text = text[match.end() :]
        if inner := PRINTK.match(text):
            return _after_printk(text, inner)
    if match := SYSLOG.match(text):
        if match.group(3).lower() not in KERNEL:
            # A service may pass on what the kernel said, with printk's time in it; all else is its own talk.
            inner = PRINTK_WITHIN.search(text, match.end(), match.end() + 240)
            return None if inner is None else _after_printk(text, inner, match.group(2))
        rest = text[match.end() :]
        if inner := PRINTK.match(rest):
            return _after_printk(rest, inner, match.group(2))
        if again := DMESG.match(rest):  # what dmesg printed, sent on
            rest = rest[again.end() :]
        return Line(rest, match.group(1), host=match.group(2))
    if match := DMESG.match(text):
        return Line(text[match.end() :], (match.group(1) or match.group(2) or "").strip() or None)
    if text.startswith("MESSAGE="):  # journalctl -o export
        return read(text[8:])
    if JOURNAL_FIELD.match(text):
        return None
    if match := PRINTK_WITHIN.search(text, 0, 240):
        return _after_printk(text, match)
    if match := PSTORE_LEVEL.match(text):
        text = text[match.end() :]
    return Line(text)


FIELD = re.compile(r"    ([A-Z_][A-Z0-9_]{0,80})=(.*)")
JOURNAL_FIELD = re.compile(r"(?:_[A-Z]|__[A-Z]|PRIORITY=|SYSLOG_|CODE_|SUBSYSTEM=|DEVICE=)[A-Z0-9_]*=?")
JSON_HEADS = frozenset('{}[]" ')
JSON_NOISE = re.compile(
    r'\s{0,80}(?:[\[\]{}],? {0,4}){1,40}\Z|\s{0,80}"(?:dmesg|fac|pri|time|caller|PRIORITY|SYSLOG_\w{1,40}|_\w{1,60}'
    r'|SEQNUM\w{0,10}|CODE_\w{1,20})"\s{0,8}:'
)


def _after_printk(text: str, match: re.Match[str], host: str = "") -> Line | None:
    """The rest behind printk's prefix, and behind whatever else a phone or the journal puts after the time."""
    end = match.end()
    time, caller = match.group(1), match.group(2) or ""
    following = text[end : end + 1]
    if following in ("[", "<") and (again := PRINTK.match(text, end)):
        end, time, caller = again.end(), again.group(1), again.group(2) or caller
    elif following and following in "([ABCDEFGHIJKLMNOPQRSTUVWXYZ c":
        # A frame's leading blank is part of the frame, so only a phone's prefix may take it away.
        phone = PHONE.match(text, end + (following == " "))
        if phone:
            end = phone.end()
            caller = "C" + next(group for group in phone.groups() if group is not None)
    if following.isalnum() and (" kernel: " in text or "]: " in text) and (short := MONOTONIC.match(text, end)):
        # journalctl -o short-monotonic: `[   12.345678] host kernel: text`
        if short.group(2).lower() not in KERNEL:
            return None
        end, host = short.end(), short.group(1)
    return Line(text[end:], time, caller, host)


MONOTONIC = re.compile(r"([\w.-]{1,255}+) (kernel(?=: )|[\w.@\\/-]{1,100}+(?=\[\d{1,10}\]: ))(?:\[\d{1,10}\])?: ")


# Keys of a record that name who sent it.
HOST_KEYS = re.compile(
    r"_HOSTNAME|host(?:name|_name)?|node(?:_?name)?|instance(?:_?id)?|pod(?:_?name)?|container(?:_?(?:name|id))?|vm|computer"
    r"|logStream(?:Name)?|source_?host|agent|beat",
    re.IGNORECASE,
)


def _json(text: str) -> Line | None:
    """One record of a JSON stream on one line, or one line of a record that is spread over several."""
    match = JSON_MESSAGE.match(text.rstrip())
    if match:
        message = _decoded(match.group(1))
        return None if message is None else read(message)
    if text.startswith("{") and text.rstrip().endswith("}"):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return _record(record)
    return None


def _record(record: object) -> Line | None:
    if not isinstance(record, dict):
        return None
    message = record.get("MESSAGE", record.get("msg", record.get("log", record.get("message"))))
    if isinstance(message, list):  # the journal gives bytes that are no UTF-8 as numbers
        message = bytes(b for b in message if isinstance(b, int) and 0 <= b < 256).decode("utf-8", "replace")
    if not isinstance(message, str):
        return None
    if record.get("_TRANSPORT", "kernel") != "kernel" and record.get("SYSLOG_IDENTIFIER") not in KERNEL:
        return Line("")
    line = read(clean(message.rstrip("\n")))
    if line is not None:
        line.host = line.host or host_of(record)
    if line is not None and line.time is None:
        time = record.get("_SOURCE_MONOTONIC_TIMESTAMP", record.get("time", record.get("__REALTIME_TIMESTAMP")))
        line.time = None if time is None else str(time).strip()
    return line


def host_of(record: dict[str, object], depth: int = 3) -> str:
    """What a record says of who sent it, here or in a record within it; an empty string where it does not."""
    names = []
    for key, value in record.items():
        if isinstance(value, str) and len(value) < 200 and HOST_KEYS.fullmatch(key):
            names.append(value)
        elif isinstance(value, dict) and depth:
            names.append(host_of(value, depth - 1))
    return " ".join(name for name in names if name)


def _decoded(value: str) -> str | None:
    try:
        message = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if isinstance(message, list):
        message = bytes(b for b in message if isinstance(b, int) and 0 <= b < 256).decode("utf-8", "replace")
    return clean(message) if isinstance(message, str) else None
