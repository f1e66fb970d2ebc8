# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel, asked: all the evidence there is, from the code that runs down to the number on the box."""

from collections.abc import Sequence

from ejectable.advisories.cve_2024_42134 import ADVISORY
from ejectable.advisories.cve_2024_42134.declarations import absent, config, symbols, types
from ejectable.advisories.cve_2024_42134.disassembly import annotated, disassembly
from ejectable.advisories.cve_2024_42134.experiment import FUNCTION, Result, experiment
from ejectable.advisories.cve_2024_42134.scene import DEFAULT, Bounds
from ejectable.advisories.cve_2024_42134.versions import changelog, version
from ejectable.advisories.verdict import verdict
from ejectable.errors import EjectableError
from ejectable.kernel import Program
from ejectable.kernel.kernel import Kernel
from ejectable.model import Doubt, DoubtKind, Evidence, EvidenceKind, Finding, Justification, Status

__all__ = ["judge_program", "probe"]

MODULE = "virtio_pci"


def probe(kernel: Kernel, bounds: Bounds = DEFAULT) -> Finding:
    """What the evidence says of this kernel. Raises `DamagedInput` where it cannot be read."""
    if kernel.source_tree is not None:
        from ejectable.advisories.cve_2024_42134.source import source

        read = [source(kernel.source_tree), version(kernel.release, None, ADVISORY.facts)]
        return _finding([item for item in read if item], "the source of the driver was not found in this tree")
    program, doubts = program_of(kernel)
    declared = [config(kernel.config, program), version(kernel.release, kernel.banner, ADVISORY.facts)]
    if program is None:
        declared.append(absent(kernel.vmlinux, kernel.config))
        doubts += _about_absence(kernel)
        return _finding([item for item in declared if item], _why_absent(kernel, doubts)).doubted(*doubts)
    evidence, result = judge_program(program, bounds)
    evidence += [item for item in declared if item]
    history = _changelog(kernel, evidence)
    if history:
        evidence.append(history)
    return _finding(evidence, result.detail, program, result).doubted(*doubts)


def program_of(kernel: Kernel) -> tuple[Program | None, tuple[Doubt, ...]]:
    """The piece of kernel that holds vp_del_vqs(), the image itself or the module, and the doubts about it."""
    vmlinux, module = kernel.vmlinux, None
    # In memory the symbols of all modules are among the kernel's, but its types are only its own.
    if kernel.format == "memory" or vmlinux is None or vmlinux.symbols.function(FUNCTION) is None:
        module = kernel.module(MODULE)
    if module is not None and module.symbols.function(FUNCTION) is not None:
        return module, kernel.module_doubts(MODULE)
    if vmlinux is not None and vmlinux.symbols.function(FUNCTION) is not None:
        return vmlinux, kernel.doubts
    return None, (*kernel.module_doubts(MODULE), *kernel.doubts)


def judge_program(program: Program, bounds: Bounds = DEFAULT) -> tuple[list[Evidence], Result]:
    """What the code and its declarations say."""
    result = experiment(program, bounds)
    justification = Justification.NOT_REACHED if result.legacy_refused else None
    evidence = [
        Evidence(EvidenceKind.EXECUTED, result.says, result.detail, result.functions, justification=justification)
    ]
    if result.slot is not None:
        found = disassembly(program, result)
        if found:
            evidence.append(found)
    evidence += [item for item in (types(program), symbols(program)) if item]
    return evidence, result


def _changelog(kernel: Kernel, evidence: list[Evidence]) -> Evidence | None:
    """The package's changelog: always where it is at hand, and where it costs much only if the code left doubts."""
    if kernel.package is None:
        return None
    decided = any(item.kind is EvidenceKind.EXECUTED and item.says is not Status.UNKNOWN for item in evidence)
    if decided and not kernel.path.endswith(".rpm"):
        return None
    try:
        return changelog(kernel.package.changelog, ADVISORY.facts)
    except EjectableError:
        return None  # a changelog that cannot be read takes nothing away from what the code says


def _about_absence(kernel: Kernel) -> tuple[Doubt, ...]:
    """The doubt that is left where only a file beside the image says that no module was built of the driver.

    A configuration in the image is this kernel's own. One beside it may be another's, unless the lists of what was
    built bear it out.
    """
    if kernel.config is None or kernel.config.embedded:
        return ()
    names = kernel.module_names()
    if names and MODULE not in names and kernel.builtin(MODULE) is False:
        return ()
    detail = "The configuration was not found in the image itself, and no list of its modules bears it out."
    return (Doubt(DoubtKind.WEAK, kernel.name, detail),)


def _why_absent(kernel: Kernel, doubts: Sequence[Doubt]) -> str:
    """Why there is nothing to run, and what would help."""
    seen = [doubt for doubt in doubts if doubt.kind is not DoubtKind.WEAK]
    if seen:
        return "; ".join(doubt.detail.rstrip(".") for doubt in seen)
    if kernel.config is not None and kernel.config.get("CONFIG_VIRTIO_PCI") == "m":
        return (
            "virtio_pci is a module of this kernel and was not given: give the package, or the folder with its modules"
        )
    if kernel.vmlinux is not None and not len(kernel.vmlinux.symbols):
        return f"the image names no symbols, so {FUNCTION}() cannot be found in it"
    if kernel.builtin(MODULE):
        return f"virtio_pci is built in, but {FUNCTION}() was not found in the image"
    return f"{FUNCTION}() is not in the image: virtio_pci may be a module; give the package, or its modules' folder"


def _finding(
    evidence: list[Evidence], nothing: str, program: Program | None = None, result: Result | None = None
) -> Finding:
    explanation: list[str] = []
    if program is not None and result is not None:
        explanation = list(result.story)
        if result.slot is not None:
            explanation = annotated(program, result)
    return verdict(
        ADVISORY.id,
        evidence,
        nothing=nothing,
        explanation=explanation,
        doubts=result.doubts if result is not None else (),
    )
