# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a defect's code is in a kernel: the piece that holds its functions, or what shows that they are not there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ejectable.model import Doubt, DoubtKind, Evidence, EvidenceKind, Status

if TYPE_CHECKING:
    from ejectable.kernel.config import Config
    from ejectable.kernel.kernel import Kernel
    from ejectable.kernel.program import Program

__all__ = ["ABSENT", "CodeUnder", "absence", "configured", "defines", "locate", "why_absent"]

ABSENT = "no-driver"  # the claim of evidence that the code was not built


class CodeUnder(msgspec.Struct, frozen=True):
    """The code that a defect is in, as a kernel may hold it.

    `functions` are those that the experiment runs, by every name that they had: any of them shows which piece of the
    kernel it is.
    """

    functions: tuple[str, ...]
    module: str | None = None  # that it may be built as; `None`: it is always in the image
    option: str | None = None  # CONFIG_..., which builds it
    menus: tuple[str, ...] = ()  # options that `option` depends on
    entry: str | None = None  # a function that is called through a pointer: an image that lacks it lacks the driver
    among: str | None = None  # a function of the same driver, where others have static functions of the same names
    # Functions of the same source file, older than `functions` and never inlined: where these are there and none of
    # `functions` is, the code was never there. Empty: its absence proves nothing.
    beside: tuple[str, ...] = ()
    also: tuple[str, ...] = ()  # other modules that the experiment may look into

    @property
    def name(self) -> str:
        """What to call it in a message: the module, or the first function."""
        return self.module or f"{self.functions[0]}()"

    def holds(self, program: "Program") -> bool:
        """Whether this piece of kernel has the code."""
        own = self.among is None or bool(program.symbols.variants(self.among))
        return own and any(defines(program, name) for name in self.functions)


def defines(program: "Program", function: str) -> bool:
    """Whether this piece of kernel has the function, and does not only call it."""
    found = program.symbols.function(function)
    return found is not None and found.kind != "U"


def locate(kernel: "Kernel", code: CodeUnder) -> tuple["Program | None", tuple[Doubt, ...]]:
    """The piece of kernel that holds the code, the image itself or the module, and the doubts about it."""
    vmlinux, module = kernel.vmlinux, None
    # In memory the symbols of all modules are among the kernel's, but its types are only its own.
    if code.module and (kernel.format == "memory" or vmlinux is None or not code.holds(vmlinux)):
        module = kernel.module(code.module)
    if code.module and module is not None and code.holds(module):
        return module, kernel.module_doubts(code.module)
    if vmlinux is not None and code.holds(vmlinux):
        return vmlinux, kernel.doubts
    return None, (*(kernel.module_doubts(code.module) if code.module else ()), *kernel.doubts)


def absence(kernel: "Kernel", code: CodeUnder) -> tuple[Evidence | None, tuple[Doubt, ...]]:
    """That the code is not there at all, and what is doubtful about it; no evidence where nothing shows it.

    A missing name alone proves nothing: the code may be in a module that was not given, inlined, or called otherwise.
    """
    for program, doubts in _pieces(kernel, code):
        there = code.beside and all(program.symbols.function(name) is not None for name in code.beside)
        if there and not any(program.symbols.variants(name) for name in code.functions):
            detail = f"{code.functions[0]}() is not there, and {code.beside[0]}() of the same source file is"
            return Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail, claim="never-there"), doubts
    vmlinux, options = kernel.vmlinux, kernel.config
    if vmlinux is None or not options or not code.option or options.says(code.option, *code.menus) != "n":
        return None, ()
    # The symbols of an image name every function that is not inlined.
    names = (code.entry,) if code.entry else code.functions
    if vmlinux.symbols.function("start_kernel") is None or any(vmlinux.symbols.variants(name) for name in names):
        return None, ()
    detail = f"{names[0]}() is not in the image, and the configuration has {code.option} off"
    found = Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail, claim=ABSENT)
    return found, _about_config(kernel, code.module)


def _pieces(kernel: "Kernel", code: CodeUnder) -> list[tuple["Program", tuple[Doubt, ...]]]:
    found = [] if kernel.vmlinux is None else [(kernel.vmlinux, kernel.doubts)]
    module = kernel.module(code.module) if code.module else None
    return found if module is None or not code.module else [*found, (module, kernel.module_doubts(code.module))]


def _about_config(kernel: "Kernel", module: str | None) -> tuple[Doubt, ...]:
    """The doubt that is left where only a file beside the image says that the code was not built.

    A configuration in the image is this kernel's own. One beside it may be another's, unless the lists of what was
    built bear it out.
    """
    if kernel.config is None or kernel.config.embedded:
        return ()
    names = kernel.module_names()
    if module and names and module not in names and kernel.builtin(module) is False:
        return ()
    detail = "The configuration was not found in the image itself, and no list of its modules bears it out."
    return (Doubt(DoubtKind.WEAK, kernel.name, detail),)


def configured(options: "Config | None", program: "Program | None", code: CodeUnder) -> Evidence | None:
    """What the configuration says of the code; `None` where there is none, or nothing to ask about.

    A configuration that switches off what is there in `program` belongs to another kernel.
    """
    if not options or not code.option:
        return None
    value = options.says(code.option, *code.menus)
    if value != "n":
        detail = f"{code.option}={value}" if value else f"{code.option} is not named"
        return Evidence(EvidenceKind.CONFIG, Status.UNKNOWN, detail)
    if program is not None:
        detail = f"{code.option} is off in the configuration, and yet its code is there: it is another kernel's"
        return Evidence(EvidenceKind.CONFIG, Status.UNKNOWN, detail)
    return Evidence(EvidenceKind.CONFIG, Status.NOT_AFFECTED, f"{code.option} is off", claim=ABSENT)


def why_absent(kernel: "Kernel", code: CodeUnder, doubts: Sequence[Doubt]) -> str:
    """Why there is nothing to run, and what would help."""
    seen = [doubt for doubt in doubts if doubt.kind is not DoubtKind.WEAK]
    if seen:
        return "; ".join(doubt.detail.rstrip(".") for doubt in seen)
    function = f"{code.functions[0]}()"
    module = code.module
    if module and kernel.config is not None and kernel.config.get(code.option or "") == "m":
        return (
            f"{module} is a module of this kernel and was not given: give the package, or the folder with its modules"
        )
    if kernel.vmlinux is not None and not len(kernel.vmlinux.symbols):
        return f"the image names no symbols, so {function} cannot be found in it"
    if not module or kernel.builtin(module):
        where = f"{module} is built in, but " if module else ""
        return f"{where}{function} was not found in the image"
    return f"{function} is not in the image: {module} may be a module; give the package, or its modules' folder"
