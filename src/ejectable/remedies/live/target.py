# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module is built for: one build of one kernel, and an advisory's repair with the offsets of this build."""

import re
from importlib import resources
from pathlib import Path

import msgspec

from ejectable import __version__
from ejectable.advisories.live_part import Resolved
from ejectable.errors import Missing
from ejectable.intake import Directory

__all__ = ["HEADER", "MODULE", "SOURCES", "Target", "copy_sources", "modinfo", "source"]

MODULE = "ejectable_live"
HEADER = "ejectable_target.h"
SOURCES = (f"{MODULE}.c", "witness.h", "action.h", "Kbuild", "Makefile")
# The running kernel's own words (utsname: 64 characters) become C strings: nothing may stand in them that C reads.
PLAIN = re.compile(r"[ !#-\[\]-~]{1,64}")
HEX = re.compile(r"(?:[0-9a-f]{2}){4,64}")


class Target(msgspec.Struct, frozen=True):
    """One build: `release` and `version` as `uname -rv` gives them; build-ids are lower-case hex, `None` unknown."""

    release: str
    version: str
    build_id: str
    driver_build_id: str | None  # of the module that the function is in, where it is in one
    hook: Resolved

    def header(self) -> bytes:
        """The C header. Raises `Missing` for a kernel that calls itself something no header can hold."""
        for what, text in (("release", self.release), ("version", self.version)):
            if not PLAIN.fullmatch(text):
                raise Missing(f"The kernel's {what} is {text!r}: no module can be built for such a name.")
        for build_id in filter(None, (self.build_id, self.driver_build_id)):
            if not HEX.fullmatch(build_id):
                raise Missing(f"{build_id!r} is no build-id.")
        lines = [
            "/* SPDX-License-Identifier: GPL-2.0-or-later */",
            f"/* Written by ejectable {__version__}, from the BTF of this kernel; good for no other one. */",
            f'#define EJECTABLE_TOOL_VERSION "{__version__}"',
            f'#define EJECTABLE_RELEASE "{self.release}"',
            f'#define EJECTABLE_VERSION "{self.version}"',
            f'#define EJECTABLE_BUILD_ID "{self.build_id}"',
            f'#define EJECTABLE_DRIVER_BUILD_ID "{self.driver_build_id or ""}"',
            f'#define EJECTABLE_DIGEST "{self.hook.digest}"',
            *self.hook.lines,
            "",
        ]
        return "\n".join(lines).encode()


def copy_sources(folder: Path, target: Target) -> None:
    """The module's sources, and the header for this target, into an empty folder."""
    with Directory.open(folder) as there:
        for name in SOURCES:
            there.write(name, source(name), lasting=False)
        there.write(HEADER, target.header(), lasting=False)


def source(name: str) -> bytes:
    """One of the module's source files, as shipped."""
    return (resources.files("ejectable.remedies.live") / "module" / name).read_bytes()


def modinfo(content: bytes) -> dict[str, str]:
    """The .modinfo section of a module: `key=value`, NUL-terminated each (include/linux/moduleparam.h)."""
    from ejectable.kernel.formats.elf import Elf

    elf = Elf(memoryview(content), name=f"{MODULE}.ko")
    section = elf.section(".modinfo")
    raw = bytes(elf.content(section)) if section is not None else b""
    pairs = (field.partition(b"=") for field in raw.split(b"\0") if field)
    return {key.decode("ascii", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}
