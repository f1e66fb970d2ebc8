# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of the defect, and nothing but the report: whatever is left of one after an attack is left of a crash."""

import re
from functools import cache

from tests.crash.fixtures import FIXTURES, load

__all__ = ["NEAR_MISS", "reports", "shows"]

NEAR_MISS = "near-other-null-call"  # a null call of another function: what a fixed kernel may say, too
# One whose caller nobody knows, with nothing else of virtio in it: without its frame, it is another crash.
NO_WITNESS = ("defect-unknown-caller",)
END = re.compile(r"---\[ end|\+0x|CR2:")
# Another task's lines, which are in two of the fixtures.
OTHERS = re.compile(r"\] +sdb: |audit: type=")
# What these reports alone say, and no other one that an attack adds: as long as one of these is there, it is theirs.
TOKENS = re.compile(
    rb"vp_|virt|NULL pointer|page fault|\bCR2|\bR[A-D]X: |\bOops|\bPGD |#PF|\bx\d\d? ?: ", re.IGNORECASE
)


@cache
def reports() -> dict[str, str]:
    """The reports of the complete fixtures that are dmesg as it is printed, by their names."""
    found = {}
    for path in FIXTURES:
        if not path.stem.startswith("defect-") or "cut" in path.stem or path.stem in NO_WITNESS:
            continue
        fixture = load(path)
        if not fixture.log.startswith(b"["):
            continue
        lines = fixture.log.decode("utf-8", "replace").splitlines(keepends=True)
        first = fixture.events[0].line - 1
        behind = fixture.events[1].line - 1 if len(fixture.events) > 1 else len(lines)
        last = max(at for at, line in enumerate(lines[:behind]) if END.search(line))
        found[path.stem] = "".join(line for line in lines[first : last + 1] if not OTHERS.search(line))
    return found


def shows(data: bytes) -> bool:
    """Whether a log still shows anything of a report."""
    return TOKENS.search(data.replace(b"\0", b"")) is not None
