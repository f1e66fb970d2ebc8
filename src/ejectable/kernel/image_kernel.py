# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel image, with the modules and the configuration that came with it."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol

from ejectable.errors import BadInput
from ejectable.intake import Compression, Limits
from ejectable.kernel.config import Config, embedded_config, parse_config
from ejectable.kernel.formats import Packed, Unpacked, lay_out
from ejectable.kernel.formats.elf import Elf, is_elf
from ejectable.kernel.formats.layout import rebased
from ejectable.kernel.identity import banner_in, build_id_in, release_of
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.module_choice import ModuleChoice, choose_module, module_program
from ejectable.kernel.modules import ModuleSource
from ejectable.kernel.package import Package
from ejectable.kernel.program import Program, SymbolTable, Types
from ejectable.model import Arch, Doubt, DoubtKind

__all__ = ["ImageKernel", "Rival", "same_build"]


class Rival(Protocol):
    """Another image that may lay claim to the same modules."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def release(self) -> str | None:
        """`uname -r`."""

    @property
    def build_id(self) -> str | None:
        """In hex."""

    @property
    def banner(self) -> str | None:
        """The whole line."""

    def module_file(self, name: str) -> str | None:
        """The file that this image takes for a module."""


def same_build(one: Rival, other: Rival) -> bool:
    """Whether two images of one release are one kernel in two forms: vmlinux and bzImage, a copy."""
    if one.build_id and other.build_id:
        return one.build_id == other.build_id
    return one.banner is not None and one.banner == other.banner


class ImageKernel(Kernel):
    """A kernel image. `rivals` are the images that came with it and may have been built with the same modules."""

    def __init__(
        self,
        path: str,
        packed: Packed,
        *,
        limits: Limits,
        modules: ModuleSource,
        config: Callable[[str | None], bytes | None],
        member: str | None = None,
        package: Package | None = None,
        rivals: Callable[[], Iterable[Rival]] = tuple,
    ) -> None:
        super().__init__(path, member=member, package=package)
        self.format = packed.format
        self.packed = packed
        self._limits = limits
        self._modules = modules
        self._config = config
        self.rivals = rivals
        self._choices: dict[str, ModuleChoice] = {}
        self._programs: dict[str, tuple[Program | None, tuple[Doubt, ...]]] = {}

    @property
    def compression(self) -> Compression:
        """Of the image."""
        return self.packed.compression

    @property
    def arch(self) -> Arch:
        """The instruction set."""
        return self.packed.arch

    @cached_property
    def release(self) -> str | None:
        """`uname -r`: from the boot header, else from the banner."""
        return release_of(self.packed.version) or release_of(self.banner)

    @cached_property
    def banner(self) -> str | None:
        """The line that begins with "Linux version"."""
        return banner_in(self.raw)

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build-id in lower-case hex."""
        return Elf(self.raw, name=self.name).build_id if is_elf(self.raw) else build_id_in(self.raw)

    @cached_property
    def config(self) -> Config | None:
        """Its configuration, embedded or beside it."""
        beside = self._config(self.release)
        return parse_config(beside) if beside is not None else embedded_config(self.raw, name=self.name)

    @cached_property
    def raw(self) -> memoryview:
        """The unpacked kernel: an ELF file or a flat image."""
        return self.packed.unpack(self._limits)

    @cached_property
    def vmlinux(self) -> Program:
        """The kernel proper, with symbols and types."""
        return self._vmlinux[0]

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What was there of the kernel proper and was not understood: symbols, types, the base of the image."""
        return self._vmlinux[1]

    @cached_property
    def _vmlinux(self) -> tuple[Program, tuple[Doubt, ...]]:
        doubts: list[Doubt] = []
        # Where the base of a flat image is not known yet, it is laid out from 0.
        unpacked = lay_out(self.raw, self.packed.arch, name=self.name)
        symbols = self._symbols(unpacked, doubts)
        if unpacked.elf is None:
            unpacked = self._at_its_base(unpacked, symbols, doubts)
        return Program("vmlinux", unpacked.image, symbols, self._types(unpacked, doubts)), tuple(doubts)

    def _doubt(self, detail: str) -> Doubt:
        return Doubt(DoubtKind.UNPARSED, self.name, detail)

    def _at_its_base(self, unpacked: Unpacked, symbols: SymbolTable, doubts: list[Doubt]) -> Unpacked:
        """A flat image where its own symbol of its first byte says; relocations alone may not have told."""
        text = symbols.get("_text")
        if text is not None and (not unpacked.has_base or text.address != unpacked.image.segments[0].address):
            return rebased(unpacked, text.address)
        if not unpacked.has_base:
            doubts.append(
                self._doubt("The virtual base of the image is not known: no relocations, and no symbol _text.")
            )
        return unpacked

    def _symbols(self, unpacked: Unpacked, doubts: list[Doubt]) -> SymbolTable:
        """The ELF symbol table where it was not stripped, else kallsyms."""
        from ejectable.kernel.symbols.elf import read_elf_symbols
        from ejectable.kernel.symbols.kallsyms import read_kallsyms

        if unpacked.elf is not None and unpacked.elf.section(".symtab") is not None:
            symbols = read_elf_symbols(unpacked.elf.data)
            if len(symbols):
                return symbols
        try:
            return read_kallsyms(unpacked.image)
        except BadInput as error:
            doubts.append(self._doubt(f"No symbols: {error.message}."))
            return SymbolTable(())

    def _types(self, unpacked: Unpacked, doubts: list[Doubt]) -> Types | None:
        """BTF where there is any, else DWARF."""
        from ejectable.kernel.types import find_btf
        from ejectable.kernel.types.btf import load_btf
        from ejectable.kernel.types.dwarf import load_dwarf

        try:
            section = unpacked.elf.section(".BTF") if unpacked.elf is not None else None
            if section is not None and unpacked.elf is not None:
                return load_btf(unpacked.elf.content(section))
            blob = find_btf(unpacked.image)
            if blob is not None:
                return load_btf(blob)
            if unpacked.elf is not None and unpacked.elf.section(".debug_info") is not None:
                return load_dwarf(unpacked.elf.data)
        except BadInput as error:
            doubts.append(self._doubt(f"No types: {error.message}."))
        return None

    def module(self, name: str) -> Program | None:
        """The module of this name that was built for this kernel, linked; `None` if there is none.

        The release in the module's own vermagic decides, not the folder it lies in. Raises `DamagedInput` if the
        module is there and broken.
        """
        return self._program(name)[0]

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        """What keeps `module(name)` from being the whole truth."""
        return self._program(name)[1]

    def module_file(self, name: str, *, near: bool = False) -> str | None:
        """The file that was taken for a module, `near`: unless it lies far from the image; `None` if there is none."""
        choice = self._choice(name)
        return None if near and choice.far else choice.file

    def _choice(self, name: str) -> ModuleChoice:
        name = name.replace("-", "_")
        if name not in self._choices:
            found = self._modules.find(self.release, name)
            self._choices[name] = choose_module(name, found, release=self.release, arch=self.arch, limits=self._limits)
        return self._choices[name]

    def _program(self, name: str) -> tuple[Program | None, tuple[Doubt, ...]]:
        name = name.replace("-", "_")
        if name not in self._programs:
            choice = self._choice(name)
            program, doubts = None, choice.doubts
            if choice.module is not None:
                program, more = module_program(name, choice.module, lambda: self.vmlinux.types)
                doubts += more + self._claimed_by_others(name, choice)
            self._programs[name] = program, doubts
        return self._programs[name]

    def _claimed_by_others(self, name: str, choice: ModuleChoice) -> tuple[Doubt, ...]:
        """A doubt for each other build of this release that takes the same module file."""
        detail = f"{choice.file} was built for one of two kernels of {self.release}, and nothing tells for which: "
        return tuple(
            Doubt(DoubtKind.AMBIGUOUS, other.name, f"{detail}{self.name} and {other.name}.")
            for other in self.rivals()
            if other.release == self.release and not same_build(self, other) and other.module_file(name) == choice.file
        )

    def module_names(self) -> frozenset[str]:
        """The modules that came with it; in a large package this reads to its end."""
        return self._modules.names(self.release)

    @cached_property
    def _builtin(self) -> frozenset[str] | None:
        return self._modules.builtin(self.release)

    def builtin(self, name: str) -> bool | None:
        """Whether modules.builtin lists `name`; `None` where there is no such list."""
        return None if self._builtin is None else name.replace("-", "_") in self._builtin
