# SPDX-License-Identifier: GPL-2.0-or-later
"""The way in: whatever file or folder holds a kernel, as a `Kernel` that can be asked.

    for kernel in open_kernels("linux-image-6.12.deb"):
        kernel.release, kernel.build_id        # cheap: read from headers
        kernel.vmlinux.symbols                 # the first that is asked for unpacks the kernel

Everything is read when it is first asked for, so properties and methods may raise `DamagedInput` too.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import msgspec

from ejectable.errors import BadInput, EjectableError
from ejectable.intake import Compression, Limits, decompress
from ejectable.kernel.config import embedded_config, parse_config
from ejectable.kernel.formats import Packed, Unpacked, lay_out
from ejectable.kernel.formats.elf import Elf, is_elf
from ejectable.kernel.formats.layout import rebased
from ejectable.kernel.identity import banner_in, build_id_in, release_of
from ejectable.kernel.module import Module
from ejectable.kernel.modules import ModuleSource
from ejectable.kernel.package import Package
from ejectable.kernel.program import Program, SymbolTable, Types
from ejectable.model import Arch

__all__ = ["Kernel", "Unreadable"]


class Unreadable(msgspec.Struct, frozen=True):
    """Something that looked like a kernel and could not be read; the others beside it still can."""

    path: str
    error: EjectableError


class Kernel:
    """One kernel: an image, its modules, or its source, and what is known of it.

    Made by `open_kernels`. `path` is the file or folder given, `member` the image's name inside of it.
    """

    def __init__(
        self,
        path: str,
        *,
        limits: Limits,
        member: str | None = None,
        packed: Packed | None = None,
        modules: ModuleSource | None = None,
        config: Callable[[str | None], bytes | None] | None = None,
        package: Package | None = None,
        source_tree: Path | None = None,
        standalone: Module | None = None,
        base: "Callable[[], Kernel | None] | None" = None,
        release: str | None = None,
    ) -> None:
        self.path = path
        self.member = member
        self.package = package
        self.source_tree = source_tree
        # Sentences about what could not be read and why it matters, for an honest "unknown".
        self.problems: list[str] = []
        self._limits = limits
        self._packed = packed
        self._modules = modules
        self._config = config
        self._standalone = standalone
        self._base = base  # the kernel that lends a standalone module its types
        self._release = release
        self._programs: dict[str, Program | None] = {}

    @property
    def name(self) -> str:
        """Path and member, for messages."""
        return f"{self.path}({self.member})" if self.member else self.path

    def __repr__(self) -> str:
        return f"<Kernel {self.name} {self.format}>"

    @property
    def format(self) -> str:
        """How it is packed: "bzImage", "Image", "zboot", "vmlinux", "module" or "source"."""
        if self._packed is not None:
            return self._packed.format
        return "source" if self.source_tree is not None else "module"

    @property
    def compression(self) -> Compression:
        """Of the image."""
        return self._packed.compression if self._packed is not None else Compression.NONE

    @cached_property
    def arch(self) -> Arch | None:
        """The instruction set; `None` for a source tree."""
        if self._packed is not None:
            return self._packed.arch
        return self._standalone.elf.arch if self._standalone is not None else None

    @cached_property
    def release(self) -> str | None:
        """`uname -r`: from the boot header or a module's vermagic, else from the banner."""
        if self._packed is not None:
            return release_of(self._packed.version) or release_of(self.banner)
        return self._standalone.release if self._standalone is not None else self._release

    @cached_property
    def banner(self) -> str | None:
        """The line that begins with "Linux version"."""
        return banner_in(self._raw) if self._raw is not None else None

    @cached_property
    def build_id(self) -> str | None:
        """The GNU build-id in lower-case hex: of the image, or of a module that stands alone."""
        if self._raw is not None:
            return Elf(self._raw, name=self.name).build_id if is_elf(self._raw) else build_id_in(self._raw)
        return self._standalone.elf.build_id if self._standalone is not None else None

    @cached_property
    def config(self) -> Mapping[str, str] | None:
        """Its configuration, embedded or beside it."""
        beside = self._config(self.release) if self._config is not None else None
        if beside is not None:
            return parse_config(beside)
        return embedded_config(self._raw, name=self.name) if self._raw is not None else None

    @cached_property
    def _raw(self) -> memoryview | None:
        """The unpacked kernel: an ELF file or a flat image."""
        return self._packed.unpack(self._limits) if self._packed is not None else None

    @cached_property
    def _unpacked(self) -> Unpacked | None:
        """The kernel in memory, laid out; where the base of a flat image is not known yet, from 0."""
        if self._raw is None or self._packed is None:
            return None
        return lay_out(self._raw, self._packed.arch, name=self.name)

    @cached_property
    def vmlinux(self) -> Program | None:
        """The kernel proper, with symbols and types; `None` where there is just a module or source."""
        unpacked = self._unpacked
        if unpacked is None:
            return None
        symbols = self._symbols(unpacked)
        if unpacked.elf is None:
            unpacked = self._at_its_base(unpacked, symbols)
        return Program("vmlinux", unpacked.image, symbols, self._types(unpacked))

    def _at_its_base(self, unpacked: Unpacked, symbols: SymbolTable) -> Unpacked:
        """A flat image where its own symbol of its first byte says; relocations alone may not have told."""
        text = symbols.get("_text")
        if text is not None and (not unpacked.has_base or text.address != unpacked.image.segments[0].address):
            return rebased(unpacked, text.address)
        if not unpacked.has_base:
            self.problems.append("The virtual base of the image is not known: no relocations, and no symbol _text.")
        return unpacked

    def _symbols(self, unpacked: Unpacked) -> SymbolTable:
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
            self.problems.append(f"No symbols: {error.message}.")
            return SymbolTable(())

    def _types(self, unpacked: Unpacked) -> Types | None:
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
            self.problems.append(f"No types: {error.message}.")
        return None

    def module(self, name: str) -> Program | None:
        """The module of this name that was built for this kernel, linked; `None` if there is none.

        The release in the module's own vermagic decides, not the folder it lies in. Raises `DamagedInput` if the
        module is there and broken.
        """
        name = name.replace("-", "_")
        if name not in self._programs:
            self._programs[name] = self._load_module(name)
        return self._programs[name]

    def _load_module(self, name: str) -> Program | None:
        module = self._find_module(name)
        if module is None:
            return None
        return Program(name, module.image, module.symbols, self._module_types(module))

    def _find_module(self, name: str) -> Module | None:
        if self._standalone is not None and name == self._standalone.name:
            return self._standalone
        others = []
        for file, data in self._modules.find(self.release, name) if self._modules is not None else ():
            module = Module(decompress(data, self._limits.in_memory, name=file), name=file)
            if self.arch in (None, module.elf.arch) and self.release in (None, module.release):
                return module
            others.append(f"{file} was built for {module.release} on {module.elf.arch}")
        if others:
            self.problems.append(f"No module {name} of {self.release}: {others[0]}.")
        return None

    def _module_types(self, module: Module) -> Types | None:
        """Split BTF over the kernel's, or over the part of it that the module carries; else DWARF."""
        from ejectable.kernel.types.btf import BtfTypes, load_btf
        from ejectable.kernel.types.dwarf import load_dwarf

        try:
            if module.btf is not None:
                base = load_btf(module.btf_base) if module.btf_base is not None else self._types_of_kernel()
                if isinstance(base, BtfTypes):
                    return load_btf(module.btf, base=base)
                self.problems.append(f"No types: {module.file} needs those of its kernel, which are not there.")
            if module.elf.section(".debug_info") is not None:
                return load_dwarf(module.elf.data)
        except BadInput as error:
            self.problems.append(f"No types: {error.message}.")
        return None

    def _types_of_kernel(self) -> Types | None:
        if self._packed is not None:
            return self.vmlinux.types if self.vmlinux is not None else None
        kernel = self._base() if self._base is not None else None
        return kernel.vmlinux.types if kernel is not None and kernel.vmlinux is not None else None

    def module_names(self) -> frozenset[str]:
        """The modules that came with it; in a large package this reads to its end."""
        if self._standalone is not None:
            return frozenset(name for name in (self._standalone.name,) if name)
        return self._modules.names(self.release) if self._modules is not None else frozenset()

    @cached_property
    def _builtin(self) -> frozenset[str] | None:
        return self._modules.builtin(self.release) if self._modules is not None else None

    def builtin(self, name: str) -> bool | None:
        """Whether modules.builtin lists `name`; `None` where there is no such list."""
        return None if self._builtin is None else name.replace("-", "_") in self._builtin
