# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's configuration: the embedded one, or a config file beside it.

CONFIG_IKCONFIG puts the gzipped .config between two marks (kernel/configs.c).
"""

import re
from collections.abc import Mapping

from ejectable.intake import Compression, decompress
from ejectable.kernel.program import searchable

__all__ = ["embedded_config", "parse_config"]

START, END = b"IKCFG_ST", b"IKCFG_ED"
MOST = 4 << 20
LINE = re.compile(r"(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)")


def embedded_config(raw: memoryview, *, name: str) -> Mapping[str, str] | None:
    """The configuration in an unpacked kernel; `None` where there is none."""
    start = searchable(raw).find(START + b"\x1f\x8b")
    if start < 0:
        return None
    packed = raw[start + len(START) : start + MOST]
    return parse_config(decompress(packed, MOST, name=f"{name}(config)", known=Compression.GZIP))


def parse_config(text: bytes) -> Mapping[str, str]:
    """Options by full name; "n" for those that the file says are not set; strings without their quotes."""
    options = {}
    for line in text.decode("utf-8", "replace").splitlines():
        found = LINE.fullmatch(line.strip())
        if found:
            options[found[1] or found[3]] = found[2].strip('"') if found[1] else "n"
    return options
