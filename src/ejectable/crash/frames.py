# SPDX-License-Identifier: GPL-2.0-or-later
"""Stack frames, as eight architectures and ten years of kernels print them.

x86      ` [<ffffffff81>] ? func+0x1/0x2 [mod]` until v4.9, ` ? func+0x1/0x2 [mod]` since
arm64    ` func+0x1/0x2 [mod]`, before v4.15 with `[<ffffff8008>]`; `(P)`, `(L)` since v6.12
arm      `[<c01>] (func) from [<c02>] (caller+0x1/0x2)`, since v5.16 ` func from caller+0x1/0x2`
powerpc  `[c000] [c001] func+0x1/0x2 (unreliable)`
s390     ` [<0000>] func+0x1/0x2`, `([<0000>] func+0x1/0x2)`
riscv    `[<ffff>] func+0x1/0x2`
"""

import re
from functools import lru_cache

from ejectable.model import Frame

__all__ = ["LOCATION", "base", "could_be_frame", "frames_of", "location", "retyped"]

NAME = r"[A-Za-z_.$][\w.$]{0,250}"
# Every repetition is bounded, and no two stand beside each other that take the same characters.
FRAME = re.compile(
    r"(?:\(?\[<?(?:0x)?[0-9a-fx]{4,16}>?\]\)? {0,4}){0,3}(\?\s{1,4})?"
    r"(?:\(?\[<?[0-9a-f]{1,16}>?\] {0,4})?\(?(?:\d{1,4}:)?"
    rf"({NAME})\+(0x[0-9a-f]{{1,8}}|\d{{1,8}})/(0x[0-9a-f]{{1,8}}|\d{{1,8}})"
    r"(?:\s{0,4}\[(?P<module>[\w-]{1,64})(?:\s[0-9a-fA-F]{1,64})?\])?(?P<rest>.{0,200})"
)
ARM = re.compile(
    r"(?:\[<[0-9a-f]{8}>\]\s{0,4})?\(?("
    + NAME
    + r")(?:\+(0x[0-9a-f]{1,8})/(0x[0-9a-f]{1,8}))?(?: \[(\w{1,64})\])?\)? from "
    r"(?:\[<[0-9a-f]{8}>\]\s{0,4})?\(?(" + NAME + r")\+(0x[0-9a-f]{1,8})/(0x[0-9a-f]{1,8})(?: \[(\w{1,64})\])?\)?"
)
# scripts/decode_stacktrace.sh: `func (file.c:12 file.h:3) mod`.
DECODED = re.compile(
    rf"(\?\s{{1,4}})?({NAME}) \([\w./-]{{1,200}}\.[chS]:\d{{1,6}}[^()]{{0,300}}\)(?: ([\w-]{{1,64}}))?\Z"
)
LOCATION = re.compile(
    rf"(?<![\w.$])({NAME})\+(0x[0-9a-f]{{1,8}})/(0x[0-9a-f]{{1,8}})"
    r"(?:\s{0,4}\[([\w-]{1,64})(?: [0-9a-f]{1,64})?\])?"
)
LONGEST = 600  # characters of a line that shows a frame

# What compilers append to a function that they split, cloned or promoted.
SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|llvm|lto_priv|clone|prop|resume|__uniq)(?:\.[0-9a-z]+)*.*$")


@lru_cache(maxsize=8192)
def base(name: str) -> str:
    """The name in the source: without what the compiler appended, and without the dot of 64-bit PowerPC's ABI v1."""
    return SUFFIX.sub("", name.lstrip(".")) if "." in name else name


@lru_cache(maxsize=8192)
def frames_of(text: str) -> tuple[Frame, ...]:
    """The frames that one line shows: none, one, or two for the last line of an ARM trace's pair."""
    text = text[:LONGEST].strip()
    if "+0x" in text:
        if " from " in text and (match := ARM.match(text)):
            name, offset, size, module, caller, caller_offset, caller_size, caller_module = match.groups()
            return (
                Frame(name, _number(offset), _number(size), module, reliable=True),
                Frame(caller, _number(caller_offset), _number(caller_size), caller_module, reliable=True),
            )
        match = FRAME.match(text)
        if match:
            rest = match["rest"]
            if rest and "=" in rest and " (" not in rest:
                return ()
            reliable = not match.group(1) and "(unreliable)" not in rest
            return (Frame(match.group(2), _number(match.group(3)), _number(match.group(4)), match["module"], reliable),)
        return ()
    if "(" in text and (match := DECODED.match(text)):
        return (Frame(match.group(2), None, None, match.group(3), reliable=not match.group(1)),)
    return ()


def location(text: str) -> Frame | None:
    """The first `func+0x1/0x2` anywhere in a line."""
    match = LOCATION.search(text)
    if not match:
        return None
    return Frame(match.group(1), _number(match.group(2)), _number(match.group(3)), match.group(4), reliable=True)


# A frame as somebody typed it, or as a photograph was read: blanks round the signs, O for 0, l or I for 1, S for 5.
RETYPED = re.compile(
    r"(\?\s{1,3})?([A-Za-z_][\w.$]{1,100}) ?\+ ?[0Oo][xX\u00d7] ?([0-9a-fA-FOolIS]{1,8}) ?/ ?"
    r"[0Oo][xX\u00d7] ?([0-9a-fA-FOolIS]{1,8})(?:\s{0,3}[\[({]([\w-]{1,60})[\])}])?\Z"
)
DIGITS = str.maketrans("OolIS", "00115")


def retyped(text: str) -> Frame | None:
    """The frame in a line that somebody typed or a program read from a picture, with its digits set right."""
    match = RETYPED.match(text[:LONGEST].strip())
    if not match:
        return None
    offset, size = (int(match.group(number).translate(DIGITS), 16) for number in (3, 4))
    return Frame(match.group(2), offset, size, match.group(5), reliable=not match.group(1))


def could_be_frame(text: str) -> bool:
    """Whether a line among frames, which could not be read as one, may have been one before it was damaged."""
    plain = text[:LONGEST].strip()
    if not 4 <= len(plain) <= 200 or ": " in plain or plain.startswith(("<", "---", "[<")):
        return False
    words = plain.removeprefix("?").split()
    if len(words) > 1 and words[-1][:1] in "[({":  # the module
        del words[-1]
    if len(words) > 4 or not words:
        return False
    return "+" in plain or (len(words) == 1 and ("_" in plain or "\ufffd" in plain))


def _number(text: str | None) -> int | None:
    if text is None or len(text) > 18:
        return None
    return int(text, 0) if text.startswith("0x") or not text.startswith("0") else int(text)
