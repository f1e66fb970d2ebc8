# SPDX-License-Identifier: GPL-2.0-or-later
"""What the module is built for: one build of one kernel, and the layout that this build gives the private struct."""

import re
from importlib import resources
from pathlib import Path

import msgspec

from ejectable import __version__
from ejectable.errors import Missing
from ejectable.intake import Directory
from ejectable.kernel import Types

__all__ = ["HEADER", "MODULE", "SOURCES", "Layout", "Target", "copy_sources", "layout_of", "modinfo", "source"]

MODULE = "ejectable_live"
HEADER = "ejectable_target.h"
SOURCES = (f"{MODULE}.c", "Kbuild", "Makefile")
STRUCT = "virtio_pci_device"
# The members beside is_avq, and what virtio_pci_{legacy,modern}.c both put there: functions of these names.
NEIGHBOURS = (("setup_vq", "setup_vq"), ("del_vq", "del_vq"), ("config_vector", "vp_config_vector"))
# The running kernel's own words (utsname: 64 characters) become C strings: nothing may stand in them that C reads.
PLAIN = re.compile(r"[ !#-\[\]-~]{1,64}")
HEX = re.compile(r"(?:[0-9a-f]{2}){4,64}")


class Layout(msgspec.Struct, frozen=True):
    """Offsets in bytes into struct virtio_pci_device."""

    is_avq: int
    vdev: int
    pci_dev: int
    size: int
    neighbours: tuple[tuple[int, str], ...]  # of the members beside is_avq, and the function that each holds


class Target(msgspec.Struct, frozen=True):
    """One build: `release` and `version` as `uname -rv` gives them; build-ids are lower-case hex, `None` unknown."""

    release: str
    version: str
    build_id: str
    driver_build_id: str | None  # of virtio_pci, where it is a module
    layout: Layout

    def header(self) -> bytes:
        """The C header. Raises `Missing` for a kernel that calls itself something no header can hold."""
        for what, text in (("release", self.release), ("version", self.version)):
            if not PLAIN.fullmatch(text):
                raise Missing(f"The kernel's {what} is {text!r}: no module can be built for such a name.")
        for build_id in filter(None, (self.build_id, self.driver_build_id)):
            if not HEX.fullmatch(build_id):
                raise Missing(f"{build_id!r} is no build-id.")
        beside = [f'{{ {offset}, "{name}" }}' for offset, name in self.layout.neighbours]
        lines = [
            "/* SPDX-License-Identifier: GPL-2.0-or-later */",
            f"/* Written by ejectable {__version__}, from the BTF of this kernel; good for no other one. */",
            f'#define EJECTABLE_TOOL_VERSION "{__version__}"',
            f'#define EJECTABLE_RELEASE "{self.release}"',
            f'#define EJECTABLE_VERSION "{self.version}"',
            f'#define EJECTABLE_BUILD_ID "{self.build_id}"',
            f'#define EJECTABLE_DRIVER_BUILD_ID "{self.driver_build_id or ""}"',
            f"#define EJECTABLE_IS_AVQ_OFFSET {self.layout.is_avq}",
            f"#define EJECTABLE_VDEV_OFFSET {self.layout.vdev}",
            f"#define EJECTABLE_PCI_DEV_OFFSET {self.layout.pci_dev}",
            f"#define EJECTABLE_DEVICE_SIZE {self.layout.size}",
            f"#define EJECTABLE_NEIGHBOURS {', '.join(beside)}",
            "",
        ]
        return "\n".join(lines).encode()


def layout_of(types: Types) -> Layout:
    """The layout by the kernel's own types; raises `Missing` where they do not have what is needed."""
    struct = types.struct(STRUCT)
    places = {}
    pointers = ("is_avq", "pci_dev", *(member for member, _ in NEIGHBOURS))
    for name in ("vdev", *pointers):
        member = types.member(STRUCT, name) if struct else None
        if member is None or member.is_bitfield:
            raise Missing(f"The kernel's types have no {STRUCT}.{name}.", hint="The layout must be known exactly.")
        places[name] = member
    odd = [name for name in pointers if places[name].size != 8]
    if odd or struct is None:
        raise Missing(f"{STRUCT}.{' and .'.join(odd)} is no pointer by the kernel's types.")
    neighbours = tuple((places[member].offset, function) for member, function in NEIGHBOURS)
    return Layout(places["is_avq"].offset, places["vdev"].offset, places["pci_dev"].offset, struct.size, neighbours)


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
