# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands before the kernel's words on every line, learned from the log itself.

Whoever passes a log on puts something before each line: a number, a quotation mark, a stamp, a container's name. What
stands before lines of one kind again and again is such a prefix, whatever it is; digits in it may change from line to
line. Words in it that come again tell the hosts apart.
"""

import re
from collections import Counter
from collections.abc import Iterable

from ejectable.crash.lines import read

__all__ = ["Prefixes", "learn"]

MOST_SHAPES = 4
MOST_LINES = 20000  # that are looked at
ENOUGH = 3  # lines that share a prefix
LONGEST = 200  # characters of a prefix

# Lines that begin so wherever they stand: what is in front of them is a prefix.
ANCHOR = re.compile(
    r"\[ {0,9}\d{1,9}\.\d{6}\]|\[<[0-9a-f]{1,16}>\] |BUG: |Oops: "
    r"|RIP: [0O]{2}1|Call [Tt]race:|CPU: \d{1,4} (?:UID: \d{1,9} )?PID: "
    r"|Code: (?:[0-9a-f]{2} |Unable|Bad)|RSP: 00|[RE][A-D]X: [0-9a-f]{8}|---\[ (?:end|cut here)|Modules linked in:"
    r"|Hardware name: |Workqueue: \w|#PF: |</?(?:TASK|IRQ)>|(?:\? )?[A-Za-z_][\w.]{2,60}\+0x[0-9a-f]{1,6}/0x[0-9a-f]"
    r"|(?:pc|lr|sp) : |Internal error: |Unable to handle|INFO: task |task:\S.{0,30} state:|Linux version \d"
    r"|Kernel panic - |CR2: 0|[RE]FLAGS: |x\d{1,2} ?: [0-9a-f]{16}|PGD |Command line: "
)
PIECE = re.compile(r"(\d{1,40})|([ \t\xa0]{1,40})|(.)", re.DOTALL)
# What changes from line to line and names nobody.
NOBODY = re.compile(
    r"\d{4}[-/]\d\d[-/]\d\d[T_ ]?|\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
    r"|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"
    r"|\b(?:(?:kern|user|daemon)[.:])?(?:emerg|alert|crit|err|error|warn|warning|notice|info|debug|kernel|stdout|stderr"
    r"|UTC|GMT|AM|PM|T|F|P|E|W|I|D|N)\b|<\d{1,3}>|(?<![\w.-])\d{1,20}(?![\w.-])",
    re.IGNORECASE,
)
NAME = re.compile(r"[A-Za-z0-9][\w.@/-]{1,80}")


class Prefixes:
    """Strips the prefixes that were learned."""

    def __init__(self, shapes: Iterable[str], hosts: Iterable[str]) -> None:
        self._shapes = [re.compile(shape) for shape in shapes]
        self._hosts = frozenset(hosts)

    def strip(self, text: str) -> tuple[str, str]:
        """A line without its prefix, and the host that the prefix names, or an empty string."""
        if ANCHOR.match(text):
            return text, ""
        for shape in self._shapes:
            match = shape.match(text)
            if match:
                host = _host(match.group(0)) if self._hosts else ""
                return text[match.end() :], host if host in self._hosts else ""
        if len(text) < LONGEST and any(shape.match(text + " ") for shape in self._shapes):
            return "", ""  # an empty line behind its prefix, whose blanks somebody cut off
        return text, ""


def learn(lines: Iterable[str]) -> Prefixes | None:
    """The prefixes of a log, or `None` where it has none that the known formats do not take off."""
    shapes: Counter[str] = Counter()
    hosts: Counter[tuple[str, str]] = Counter()
    for count, text in enumerate(lines):
        if count >= MOST_LINES:
            break
        match = ANCHOR.search(text, 0, LONGEST)
        if match is None or not match.start():
            continue
        prefix = text[: match.start()]
        known = read(text)
        if known is None or (known.text and known.host):
            continue
        if known.text != text and not ANCHOR.search(known.text, 1, LONGEST) and not match.group(0).startswith("["):
            continue  # a known format takes it off
        if "+" in match.group(0) and prefix.strip() == "" and len(prefix) <= 2:
            continue  # a frame is indented by itself
        if "+" in match.group(0) and prefix.endswith(" "):
            prefix = prefix[:-1]  # the blank is the frame's
        shapes[_shape(prefix)] += 1
        hosts[_shape(prefix), _host(prefix)] += 1
    common = [shape for shape, count in shapes.most_common(2 * MOST_SHAPES) if count >= ENOUGH and shape]
    # "web1 watchdog: " beside "web1 ": the word is the kernel's own, and so part of the line.
    learned = [
        shape
        for shape in common
        if not any(shapes[shape] < shapes[one] and _adds_words(shape, one) for one in common if one != shape)
    ][:MOST_SHAPES]
    names = [name for (shape, name), count in hosts.items() if name and count >= ENOUGH and shape in learned]
    if not learned:
        return None
    # The longest first: one prefix may be the beginning of another.
    return Prefixes(sorted(learned, key=len, reverse=True), names if len(names) > 1 else ())


def _shape(prefix: str) -> str:
    """A pattern of a prefix, in which the digits may be others."""
    pieces = []
    blank_only = not prefix.strip()
    for digits, blanks, other in PIECE.findall(prefix):
        if digits:
            pieces.append(r"\d{1,20}")
        elif blanks:
            pieces.append(re.escape(blanks) if blank_only or len(blanks) == 1 else r"[ \t\xa0]{1,40}")
        else:
            pieces.append(re.escape(other))
    return "".join(pieces)


def _adds_words(shape: str, beginning: str) -> bool:
    """Whether a shape is another one and words behind it."""
    return (
        shape.startswith(beginning) and re.search(r"[A-Za-z]{2}", GENERAL.sub("", shape[len(beginning) :])) is not None
    )


GENERAL = re.compile(r"\\d\{1,20\}|\[ \\t\\xa0\]\{1,40\}")  # what a shape says of digits and blanks


def _host(prefix: str) -> str:
    """The words of a prefix that name somebody."""
    return " ".join(NAME.findall(NOBODY.sub(" ", prefix)))
