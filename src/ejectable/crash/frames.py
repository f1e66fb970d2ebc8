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

NAME = r"[A-Za-z_.$][\w.$]*"
FRAME = re.compile(
    r"\s*(?:\(?\[<?(?:0x)?[0-9a-fx]{4,16}>?\]\)?\s*){0,2}(?:\[[0-9a-f]{8,16}\]\s*)?(\?\s+)?\(?(?:\d{1,4}:)?"
    r"(?:\[<[0-9a-f]+>\]\s*)?"
    rf"({NAME})\+(0x[0-9a-f]+|\d+)/(0x[0-9a-f]+|\d+)"
    r"(?:\s*\[(?P<module>[\w-]+)(?:\s[0-9a-fA-F]+)?\])?(?P<rest>.{0,200})"
)
ARM = re.compile(
    r"\s*(?:\[<[0-9a-f]{8}>\]\s*)?\(?(" + NAME + r")(?:\+(0x[0-9a-f]+)/(0x[0-9a-f]+))?(?: \[(\w+)\])?\)? from "
    r"(?:\[<[0-9a-f]{8}>\]\s*)?\(?(" + NAME + r")\+(0x[0-9a-f]+)/(0x[0-9a-f]+)(?: \[(\w+)\])?\)?"
)
# scripts/decode_stacktrace.sh: `func (file.c:12 file.h:3) mod`.
DECODED = re.compile(rf"\s*(\?\s+)?({NAME}) \((?:\./|\.\./)*[\w./-]+\.[chS]:\d+[^()]{{0,300}}\)(?: ([\w-]+))?\s*$")
LOCATION = re.compile(rf"({NAME})\+(0x[0-9a-f]+)/(0x[0-9a-f]+)(?:\s*\[([\w-]+)(?: [0-9a-f]+)?\])?")

# What compilers append to a function that they split, cloned or promoted.
SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|llvm|lto_priv|clone|prop|resume|__uniq)(?:\.[0-9a-z]+)*.*$")


@lru_cache(maxsize=8192)
def base(name: str) -> str:
    """The name in the source: without what the compiler appended, and without the dot of 64-bit PowerPC's ABI v1."""
    return SUFFIX.sub("", name.lstrip(".")) if "." in name else name


@lru_cache(maxsize=8192)
def frames_of(text: str) -> tuple[Frame, ...]:
    """The frames that one line shows: none, one, or two for the last line of an ARM trace's pair."""
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
    r"\s*(\?\s{0,3})?([A-Za-z_][\w.$]{1,100})\s{0,2}\+\s{0,2}[0Oo][xX\u00d7]\s?([0-9a-fA-FOolIS]{1,8})\s{0,2}/\s{0,2}"
    r"[0Oo][xX\u00d7]\s?([0-9a-fA-FOolIS]{1,8})(?:\s{0,3}[\[({]([\w-]{1,60})[\])}])?\s*$"
)
DIGITS = str.maketrans("OolIS", "00115")
COULD_BE = re.compile(r"\??\s{0,3}\S{2,120}(?:\s{0,3}[\[({]\S{1,60})?$|\??\s{0,3}(?:\S{1,60}\s){0,3}\S{0,80}\+\s?\S?\w")


def retyped(text: str) -> Frame | None:
    """The frame in a line that somebody typed or a program read from a picture, with its digits set right."""
    match = RETYPED.match(text)
    if not match:
        return None
    offset, size = (int(match.group(number).translate(DIGITS), 16) for number in (3, 4))
    return Frame(match.group(2), offset, size, match.group(5), reliable=not match.group(1))


def could_be_frame(text: str) -> bool:
    """Whether a line among frames, which could not be read as one, may have been one before it was damaged."""
    plain = text.strip()
    if not 4 <= len(plain) <= 200 or ": " in plain or plain.startswith(("<", "---", "[<")):
        return False
    return COULD_BE.match(plain) is not None and ("_" in plain or "+" in plain or "\ufffd" in plain)


def _number(text: str | None) -> int | None:
    if text is None or len(text) > 18:
        return None
    return int(text, 0) if text.startswith("0x") or not text.startswith("0") else int(text)
