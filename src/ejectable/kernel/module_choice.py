# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of several module files is the kernel's, and how sure that is; and its module as a program with types."""

from collections.abc import Callable, Iterable

import msgspec

from ejectable.errors import BadInput, EjectableError, Missing, NotSupported
from ejectable.intake import Limits, decompress
from ejectable.intake.reasons import doubt_of
from ejectable.kernel.formats.elf import SHF_EXECINSTR
from ejectable.kernel.module import Module
from ejectable.kernel.modules import ModuleFile, ModuleFiles, Rank
from ejectable.kernel.program import Program, Types
from ejectable.model import Arch, Doubt, DoubtKind

__all__ = ["ModuleChoice", "choose_module", "has_code", "module_program"]


class ModuleChoice(msgspec.Struct, frozen=True):
    """The module that was built for a kernel, `None` if there is none, and what speaks against being sure of it."""

    module: Module | None = None
    doubts: tuple[Doubt, ...] = ()
    far: bool = False  # it lies in another folder than the kernel and its modules

    @property
    def file(self) -> str | None:
        """The name of the module's file."""
        return self.module.file if self.module is not None else None


def choose_module(
    name: str, found: ModuleFiles, *, release: str | None, arch: Arch | None, limits: Limits
) -> ModuleChoice:
    """The first of the files that was built for `release` and `arch`; a module's own vermagic says what for.

    Raises `DamagedInput` where that one cannot be read. A second one with other code is a doubt, unless modules.dep
    says which of them is loaded; so is a module that only its release connects with the kernel.
    """
    doubts = list(found.doubts)
    chosen: tuple[ModuleFile, Module] | None = None
    decided: set[str] = set()  # the origins whose modules.dep named a module that fits
    others: list[str] = []
    for file in found.files:
        if file.origin in decided or (chosen is not None and not _comparable(chosen[0], file)):
            continue
        try:
            module = Module(decompress(file.read(), limits.in_memory, name=file.name), name=file.name)
            fits = arch in (None, module.elf.arch) and release in (None, module.release)
            if not has_code(module):
                others.append(f"{file.name} holds information for debuggers, and no code")
                continue
        except NotSupported as error:
            doubts.append(Doubt(DoubtKind.UNPARSED, file.name, error.message))
            continue
        except EjectableError as error:
            if chosen is None and file.rank is not Rank.FAR and not isinstance(error, Missing):
                raise
            doubts.append(doubt_of(error, file.name))
            continue
        if not fits:
            others.append(f"{file.name} was built for {module.release} on {module.elf.arch}")
            continue
        if file.listed:
            decided.add(file.origin)
        if chosen is None:
            chosen = file, module
        elif not _same_code(chosen[1], module):
            detail = f"There are two different modules {name}, and nothing says which is loaded: "
            detail += f"{chosen[0].name} and {file.name}."
            doubts.append(Doubt(DoubtKind.AMBIGUOUS, file.name, detail))
    if chosen is None:
        if others:
            detail = f"No module {name} of {release}: {others[0]}."
            doubts.append(Doubt(DoubtKind.IDENTITY, others[0].partition(" ")[0], detail))
        return ModuleChoice(None, tuple(doubts))
    if release is None:
        detail = f"The release of the kernel is not known, so nothing shows that {chosen[0].name} was built for it."
        doubts.append(Doubt(DoubtKind.IDENTITY, chosen[0].name, detail))
    if chosen[0].rank is Rank.FAR:
        detail = f"{chosen[0].name} has the release of the kernel, and nothing else shows that it was built with it."
        doubts.append(Doubt(DoubtKind.IDENTITY, chosen[0].name, detail))
    return ModuleChoice(chosen[1], tuple(doubts), chosen[0].rank is Rank.FAR)


def _comparable(chosen: ModuleFile, other: ModuleFile) -> bool:
    """Whether another file may be what is loaded as well: not where a closer one was found that modules.dep names."""
    if other.rank is Rank.FAR:
        return chosen.rank is Rank.FAR
    return other.rank == chosen.rank or not chosen.listed


def has_code(module: Module) -> bool:
    """Whether there are instructions in it: `objcopy --only-keep-debug` leaves sections with nothing in them."""
    return any(content for _, content in _code(module)) or not _code(module)


def _same_code(one: Module, other: Module) -> bool:
    """Whether two files hold the same build: one may have been stripped."""
    if one.elf.data == other.elf.data:
        return True
    if one.elf.build_id is None or one.elf.build_id != other.elf.build_id:
        return False
    return _code(one) == _code(other)


def _code(module: Module) -> list[tuple[str, bytes]]:
    elf = module.elf
    return [(section.name, bytes(elf.content(section))) for section in elf.sections if section.flags & SHF_EXECINSTR]


def module_program(
    name: str, module: Module, kernel_types: Callable[[], Types | None]
) -> tuple[Program, tuple[Doubt, ...]]:
    """The module linked, with its types: split BTF over the kernel's, or over what it carries of them; else DWARF; else
    the kernel's alone.

    A doubt where its types are there and were not understood, or only make sense with those of its kernel.
    """
    types, doubts = _types(module, kernel_types)
    return Program(name, module.image, module.symbols, types), tuple(doubts)


def _types(module: Module, kernel_types: Callable[[], Types | None]) -> tuple[Types | None, Iterable[Doubt]]:
    from ejectable.kernel.types.btf import BtfTypes, load_btf
    from ejectable.kernel.types.dwarf import load_dwarf

    try:
        if module.btf is not None:
            base = load_btf(module.btf_base) if module.btf_base is not None else kernel_types()
            if isinstance(base, BtfTypes):
                return load_btf(module.btf, base=base), ()
        if module.elf.section(".debug_info") is not None:
            return load_dwarf(module.elf.data), ()
        # Until v5.10, and without CONFIG_DEBUG_INFO_BTF_MODULES, a module has none of its own. Those of its kernel
        # hold what it shares with the rest, such as struct pci_dev.
        return kernel_types() if module.btf is None else None, ()
    except BadInput as error:
        return None, [Doubt(DoubtKind.UNPARSED, module.file, f"No types: {error.message}.")]
