# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of ECS instance types, and what may be read out of them: `ecs.g7ne.2xlarge`, `ecs.u1-c1m2.large`.

Source: Alibaba Cloud, "Overview of instance families" and "Classification and naming of instance types". The digit of a
family orders releases only within the general kinds (g, c, r, re, hf*, and ebm* of those). For GPU families it is the
architecture of the GPU, and i4, d3, u1, e, t6 and the like are numbered each for itself: those are never compared.
"""

import re
from typing import Literal

import msgspec

from ejectable.model import Arch

__all__ = ["MODERN_GENERATION", "TypeName", "parse", "successors"]

# "8th-generation or later": the vendor's own remedy.
MODERN_GENERATION = 8

NAME = re.compile(r"ecs\.([a-z][a-z0-9]{0,15})(?:-([a-z0-9][a-z0-9-]{0,23}))?\.([a-z0-9][a-z0-9-]{0,23})")
GENERAL = re.compile(r"(ebm)?(hf[gcr]|re|[gcr])(\d{1,2})([a-z]{0,4})")
# vCPU to memory, in the variant of families that come in several shapes: u1-c1m2, t5-lc1m4.
SHAPE = re.compile(r"l?c(\d{1,2})m(\d{1,2})")

# The 8th generation of each kind, by the vendor of the processor; what is not offered is left out.
EIGHTH: dict[str, dict[str, str]] = {
    "g": {"intel": "g8i", "amd": "g8a", "arm": "g8y"},
    "c": {"intel": "c8i", "amd": "c8a", "arm": "c8y"},
    "r": {"intel": "r8i", "amd": "r8a", "arm": "r8y"},
    "hfg": {"intel": "hfg8i"},
    "hfc": {"intel": "hfc8i"},
    "hfr": {"intel": "hfr8i"},
    "re": {"intel": "re8"},
}
# Families outside of the scheme whose instances are ordinary machines (x86, cloud disks, no accelerator), and the kind
# that has their share of memory: 2 GiB for a vCPU is c, 4 is g, 8 is r. "" where the variant of the name says it.
ORDINARY = {
    "sn1": "c", "sn1ne": "c", "n4": "c", "ic5": "c", "sn2": "g", "sn2ne": "g", "mn4": "g", "se1": "r", "se1ne": "r",
    "e4": "r", "e": "", "u1": "", "t5": "", "t6": "", "s6": "",
}  # fmt: skip
KIND_OF_RATIO = {1: "c", 2: "c", 4: "g", 8: "r"}
# One vCPU or less: the general families begin at `large`, with two.
SMALL = ("nano", "small", "medium")


class TypeName(msgspec.Struct, frozen=True):
    """A type's name, taken apart. `kind` and `generation` are None outside of the scheme."""

    name: str  # ecs.g7ne.2xlarge
    family: str  # g7ne; u1 for ecs.u1-c1m2.large
    variant: str | None  # c1m2
    size: str  # 2xlarge
    kind: str | None = None  # g, c, r, re, hfg, hfc, hfr
    metal: bool = False  # ebm*: the whole server
    generation: int | None = None
    suffix: str = ""

    @property
    def modern(self) -> bool | None:
        """Whether the rule promises modern virtio devices; `None` where it says nothing. A hint, never a proof."""
        return None if self.generation is None else self.generation >= MODERN_GENERATION

    @property
    def maker(self) -> Literal["intel", "amd", "arm", "hygon"]:
        """Who made the processor, of a general family: a and ae AMD, y YiTian, r Ampere (g6r and c6r), h Hygon."""
        if self.suffix.startswith("y") or (self.generation == 6 and self.suffix == "r"):
            return "arm"
        if self.suffix.startswith("a"):
            return "amd"
        return "hygon" if self.suffix.startswith("h") else "intel"

    @property
    def arch(self) -> Arch | None:
        """The architecture that the name implies; `None` outside of the scheme."""
        if self.kind is None:
            return None
        return "aarch64" if self.maker == "arm" else "x86_64"

    @property
    def plain(self) -> bool:
        """Without an extra (storage, network, security) that is paid for."""
        return self.suffix in ("", "i", "a", "y", "h")


def parse(name: str) -> TypeName | None:
    """Take a name apart; `None` for what is not the name of an ECS instance type."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    family, variant, size = match[1], match[2], match[3]
    general = GENERAL.fullmatch(family) if variant is None else None
    if general is None:
        return TypeName(name, family, variant, size)
    return TypeName(name, family, None, size, general[2], general[1] is not None, int(general[3]), general[4])


def successors(current: TypeName) -> tuple[str, ...]:
    """The best guess without asking anybody: types of the 8th generation that resemble this one, the closest first.

    Empty for what has no counterpart among the general families (GPU, local disks), and for what needs none.
    """
    if current.modern:
        return ()
    if current.kind is not None:
        return _eighth(current)
    kind = ORDINARY.get(current.family)
    if kind is None:
        return ()
    shape = SHAPE.fullmatch(current.variant or "")
    if shape and int(shape[1]):
        kind = KIND_OF_RATIO.get(int(shape[2]) // int(shape[1]), kind)
    size = "large" if current.size in SMALL else current.size
    return tuple(f"ecs.{EIGHTH[kind][maker]}.{size}" for maker in ("intel", "amd")) if kind else ()


def _eighth(current: TypeName) -> tuple[str, ...]:
    assert current.kind is not None
    families = EIGHTH[current.kind]
    if current.metal:
        return (f"ecs.ebm{current.kind}8i.{current.size}",) if current.maker == "intel" else ()
    # Hygon has no 8th generation; the same programs run on the other x86 processors.
    makers = {"intel": ("intel", "amd"), "amd": ("amd", "intel"), "arm": ("arm",), "hygon": ("intel", "amd")}
    found = [families[maker] for maker in makers[current.maker] if maker in families]
    if current.suffix in ("ne", "nex", "ine") and current.kind in ("g", "c"):
        found.insert(0, f"{current.kind}8ine")
    return tuple(f"ecs.{family}.{current.size}" for family in found)
