# SPDX-License-Identifier: GPL-2.0-or-later
"""Selects the modules that a guest needs, in the order in which they load: the drivers and their dependencies.

A module is known by the name of its file without its suffixes, dashes as underscores (as modprobe has it). What
it depends on stands in modules.dep where there is one (depmod writes it on installation; packages come without),
and always in the module's own .modinfo section, "depends=a,b".
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

import msgspec

from ejectable.errors import BadInput, DamagedInput
from ejectable.intake import decompress, open_regular, read_bounded
from ejectable.lab.inside import inside

__all__ = ["Module", "ModuleSet", "depends_of", "module_name", "needed", "read_module"]

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
MODULE_LIMIT = 64 << 20
MOST_MODULES = 100  # in one guest; a chain longer than this is a loop or a joke


def module_name(path: str) -> str | None:
    """The name of the module in this file, or `None` for a file that is none."""
    base = PurePosixPath(path).name
    for suffix in SUFFIXES:
        if base.endswith(suffix):
            return base[: -len(suffix)].replace("-", "_")
    return None


class Module(msgspec.Struct, frozen=True):
    """A module to load: its name, and the unpacked object."""

    name: str
    content: bytes


def read_module(path: str) -> Module:
    """A module out of a file; raises `BadInput`, `DamagedInput` or `Missing`."""
    name = module_name(path)
    if name is None:
        raise BadInput("expected a module (.ko, .ko.xz, .ko.zst, .ko.gz)", path=path)
    with open_regular(path) as stream:
        return Module(name, _unpacked(read_bounded(stream, MODULE_LIMIT, name=path), path))


def _unpacked(data: bytes, path: str) -> bytes:
    return inside(lambda: decompress(data, MODULE_LIMIT, name=path), into=bytes)


class ModuleSet:
    """The modules that are on offer: by name, read when asked for. Later sources hide earlier ones."""

    def __init__(self, builtin: Iterable[str] = (), *, builtin_known: bool = False) -> None:
        self.builtin = frozenset(builtin)
        self.builtin_known = builtin_known or bool(self.builtin)
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._paths: dict[str, str] = {}
        self._dependencies: dict[str, tuple[str, ...]] = {}
        self._loaded: dict[str, Module] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def __len__(self) -> int:
        return len(self._readers)

    def add(self, path: str, read: Callable[[], bytes]) -> None:
        """Offer the module in a file; one of the same name that was there is hidden, and so is what it depends on."""
        name = module_name(path)
        if name is not None:
            self._readers[name] = read
            self._paths[name] = path
            self._dependencies.pop(name, None)
            self._loaded.pop(name, None)

    def dependencies(self, table: Mapping[str, tuple[str, ...]]) -> None:
        """Take over what modules.dep says, by module name."""
        self._dependencies.update({name: needs for name, needs in table.items() if name in self._readers})

    def load(self, name: str) -> Module:
        """The module, unpacked; raises `DamagedInput`."""
        if name not in self._loaded:
            path = self._paths[name]
            self._loaded[name] = Module(name, _unpacked(self._readers[name](), path))
        return self._loaded[name]

    def depends(self, name: str) -> tuple[str, ...]:
        """What a module depends on, directly or (in modules.dep) altogether."""
        if name not in self._dependencies:
            content, path = self.load(name).content, self._paths[name]
            self._dependencies[name] = inside(lambda: depends_of(content, path=path), into=tuple[str, ...])
        return self._dependencies[name]


def needed(modules: ModuleSet, wanted: Iterable[str]) -> list[Module]:
    """The wanted modules and all they depend on, each behind what it depends on; what is not on offer is built in."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in visiting or name not in modules:
            return
        visiting.add(name)
        if len(visiting) > MOST_MODULES:
            raise BadInput(f"the modules that {name} depends on are more than {MOST_MODULES}: this is no kernel's tree")
        for dependency in sorted(modules.depends(name)):
            visit(dependency)
        order.append(name)

    for name in wanted:
        visit(name)
    return [modules.load(name) for name in order]


def depends_of(content: bytes, *, path: str) -> tuple[str, ...]:
    """What the module's .modinfo says it depends on. Raises `DamagedInput` where there is no such section."""
    for field in _modinfo(content, path).split(b"\0"):
        key, _, value = field.partition(b"=")
        if key == b"depends":
            return tuple(name.replace("-", "_") for name in value.decode(errors="replace").split(",") if name)
    return ()


def _modinfo(content: bytes, path: str) -> bytes:
    """The section .modinfo of an ELF64 object: the layout is in elf(5)."""
    try:
        if content[:6] != b"\x7fELF\x02\x01":
            raise DamagedInput("expected a 64-bit module, found something else", path=path, offset=0)
        (table,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", content, 0x3A)
        sections = [struct.unpack_from("<IIQQQQ", content, table + size * number) for number in range(count)]
        names = sections[names_index]
        for section in sections:
            start = names[4] + section[0]
            if content[start : start + 9] == b".modinfo\0":
                return content[section[4] : section[4] + section[5]]
    except (struct.error, IndexError) as error:
        raise DamagedInput("the section table of this module is cut off", path=path) from error
    raise DamagedInput("this module has no section .modinfo", path=path)
