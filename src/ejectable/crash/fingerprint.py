# SPDX-License-Identifier: GPL-2.0-or-later
"""One value for one bug, whatever the boot, the address layout, the offset or the CPU.

It rests on what went wrong (the kind) and where (the function to blame and the callers next to it, by their names in
the source). Offsets, sizes, addresses, times, processes and what compilers append to names stay out.
"""

import hashlib
import re
from collections.abc import Iterable

from ejectable.crash.blame import bottom, skipped
from ejectable.crash.frames import base

__all__ = ["fingerprint"]

DEPTH = 3
VARIABLE = re.compile(r"0x[0-9a-f]+|\d+|[0-9a-f]{8,16}")


def fingerprint(kind: str, title: str, function: str | None, callers: Iterable[str]) -> str:
    """Sixteen hexadecimal digits."""
    names: list[str] = []
    for caller in callers:
        name = base(caller)
        if name == function or name in names or skipped(name):
            continue
        if bottom(name) or len(names) == DEPTH:
            break
        names.append(name)
    text = "|".join((kind, VARIABLE.sub("#", title), function or "", *names))
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()
