# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's configuration: the embedded one, or a config file beside it.

CONFIG_IKCONFIG puts the gzipped .config between two marks (kernel/configs.c).
"""

import re

from ejectable.intake import Compression, decompress
from ejectable.kernel.program import searchable

__all__ = ["Config", "embedded_config", "parse_config"]

START, END = b"IKCFG_ST", b"IKCFG_ED"
MOST = 4 << 20
LINE = re.compile(r"(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)")


class Config(dict[str, str]):
    """Options by full name; "n" for those that the file says are not set; strings without their quotes.

    An option that is absent is not known: the file may break off, and Kconfig writes no line for an option whose
    dependencies are off.
    """

    embedded = False  # whether it stands in the image itself, and so is this kernel's for sure

    def says(self, option: str, *dependencies: str) -> str | None:
        """The option's value: "n" too where one of its dependencies is said to be off; `None`: not known."""
        if option in self:
            return self[option]
        return "n" if any(self.get(other) == "n" for other in dependencies) else None


def embedded_config(raw: memoryview, *, name: str) -> Config | None:
    """The configuration in an unpacked kernel; `None` where there is none."""
    start = searchable(raw).find(START + b"\x1f\x8b")
    if start < 0:
        return None
    packed = raw[start + len(START) : start + MOST]
    options = parse_config(decompress(packed, MOST, name=f"{name}(config)", known=Compression.GZIP))
    options.embedded = True
    return options


def parse_config(text: bytes) -> Config:
    """The options of a .config file."""
    options = Config()
    for line in text.decode("utf-8", "replace").splitlines():
        found = LINE.fullmatch(line.strip())
        if found:
            options[found[1] or found[3]] = found[2].strip('"') if found[1] else "n"
    return options
