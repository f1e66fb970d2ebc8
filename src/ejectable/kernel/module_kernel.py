# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels without their image: one module on its own, or the modules of a release in a package."""

from collections.abc import Callable
from functools import cached_property

from ejectable.errors import EjectableError
from ejectable.intake import Limits
from ejectable.kernel.config import Config, parse_config
from ejectable.kernel.kernel import Kernel
from ejectable.kernel.module import Module
from ejectable.kernel.module_choice import ModuleChoice, choose_module, has_code, module_program
from ejectable.kernel.modules import ModuleSource
from ejectable.kernel.package import Package
from ejectable.kernel.program import Program, Types
from ejectable.model import Arch, Doubt, DoubtKind

__all__ = ["ModuleKernel", "ModulesKernel"]


class ModuleKernel(Kernel):
    """One module's file. `lender` finds the kernel that it belongs to, which lends it its types."""

    format = "module"

    def __init__(
        self,
        path: str,
        module: Module,
        *,
        member: str | None = None,
        package: Package | None = None,
        lender: Callable[[], Kernel | None] = lambda: None,
    ) -> None:
        super().__init__(path, member=member, package=package)
        self._module = module
        self._lender = lender

    @property
    def arch(self) -> Arch:
        """The instruction set."""
        return self._module.elf.arch

    @property
    def release(self) -> str | None:
        """The release that its vermagic names."""
        return self._module.release

    @property
    def build_id(self) -> str | None:
        """The module's own."""
        return self._module.elf.build_id

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """That it has no code, where that is so."""
        if has_code(self._module):
            return ()
        return (Doubt(DoubtKind.MISSING, self.name, "The module holds information for debuggers, and no code."),)

    @cached_property
    def _program(self) -> tuple[Program, tuple[Doubt, ...]]:
        return module_program(self._module.name or "", self._module, self._types_of_kernel)

    def _types_of_kernel(self) -> Types | None:
        try:
            kernel = self._lender()
            return kernel.vmlinux.types if kernel is not None and kernel.vmlinux is not None else None
        except EjectableError:  # it was only a guess where its kernel may be
            return None

    def module(self, name: str) -> Program | None:
        """The module, if it has this name."""
        return self._program[0] if name.replace("-", "_") == self._module.name else None

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        """About its types."""
        return self._program[1] if name.replace("-", "_") == self._module.name else ()

    def module_names(self) -> frozenset[str]:
        """Its own name."""
        return frozenset(name for name in (self._module.name,) if name)


class ModulesKernel(Kernel):
    """The modules of one release, whose image came in another package or not at all."""

    format = "module"

    def __init__(
        self,
        path: str,
        release: str | None,
        *,
        limits: Limits,
        modules: ModuleSource,
        config: Callable[[str | None], bytes | None],
        package: Package | None = None,
    ) -> None:
        super().__init__(path, package=package)
        self._release = release
        self._limits = limits
        self._modules = modules
        self._config = config
        self._choices: dict[str, tuple[ModuleChoice, Program | None, tuple[Doubt, ...]]] = {}

    @property
    def release(self) -> str | None:
        """The name of the folder that they lie in."""
        return self._release

    @cached_property
    def config(self) -> Config | None:
        """The configuration that came with them."""
        text = self._config(self.release)
        return parse_config(text) if text is not None else None

    def _choice(self, name: str) -> tuple[ModuleChoice, Program | None, tuple[Doubt, ...]]:
        name = name.replace("-", "_")
        if name not in self._choices:
            found = self._modules.find(self.release, name)
            choice = choose_module(name, found, release=self.release, arch=None, limits=self._limits)
            program, more = module_program(name, choice.module, lambda: None) if choice.module else (None, ())
            self._choices[name] = choice, program, choice.doubts + more
        return self._choices[name]

    def module(self, name: str) -> Program | None:
        """The module of this name, linked; `None` if there is none. Raises `DamagedInput` if it is broken."""
        return self._choice(name)[1]

    def module_doubts(self, name: str) -> tuple[Doubt, ...]:
        """What keeps `module(name)` from being the whole truth."""
        return self._choice(name)[2]

    def module_names(self) -> frozenset[str]:
        """All of them."""
        return self._modules.names(self.release)

    @cached_property
    def _builtin(self) -> frozenset[str] | None:
        return self._modules.builtin(self.release)

    def builtin(self, name: str) -> bool | None:
        """Whether modules.builtin lists `name`; `None` where there is no such list."""
        return None if self._builtin is None else name.replace("-", "_") in self._builtin
