# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel, asked: all the evidence there is, from the code that runs down to the number on the box."""

from collections.abc import Sequence

from ejectable.advisories.cve_2024_42134 import ADVISORY
from ejectable.advisories.cve_2024_42134.declarations import config, driver_option, symbols, types
from ejectable.advisories.cve_2024_42134.experiment import FUNCTION, Result, experiment
from ejectable.advisories.cve_2024_42134.versions import changelog, version
from ejectable.advisories.verdict import verdict
from ejectable.errors import EjectableError
from ejectable.kernel import Program
from ejectable.kernel.kernel import Kernel
from ejectable.model import Doubt, Evidence, EvidenceKind, Finding, Status

__all__ = ["judge_program", "probe"]

NOT_PRESENT = "vulnerable_code_not_present"
NOT_REACHED = "vulnerable_code_not_in_execute_path"
MODULE = "virtio_pci"


def probe(kernel: Kernel) -> Finding:
    """What the evidence says of this kernel. Raises `DamagedInput` where it cannot be read."""
    if kernel.source_tree is not None:
        from ejectable.advisories.cve_2024_42134.source import source

        read = [source(kernel.source_tree), version(kernel.release, None, ADVISORY.facts)]
        return _finding([item for item in read if item], "the source of the driver was not found in this tree")
    program, doubts = program_of(kernel)
    written = [config(kernel.config, program), version(kernel.release, kernel.banner, ADVISORY.facts)]
    if program is None:
        written.append(_absent(kernel))
        return _finding([item for item in written if item], _why_absent(kernel, doubts)).doubted(*doubts)
    evidence, result = judge_program(program)
    evidence += [item for item in written if item]
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


def judge_program(program: Program) -> tuple[list[Evidence], Result]:
    """What the code and its declarations say."""
    result = experiment(program)
    evidence = [Evidence(EvidenceKind.EXECUTED, result.says, result.detail)]
    if result.slot is not None:
        from ejectable.advisories.cve_2024_42134.disassembly import disassembly

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


def _absent(kernel: Kernel) -> Evidence | None:
    """That the driver is not there at all: not in the image, and not among its modules either.

    A driver that is not in the image may be a module. That it is none takes the configuration in the image itself, or
    one beside it together with the lists of what was built.
    """
    options, vmlinux = kernel.config, kernel.vmlinux
    if options is None or driver_option(options) != "n" or vmlinux is None or not len(vmlinux.symbols):
        return None
    names = kernel.module_names()
    listed = bool(names) and MODULE not in names and kernel.builtin(MODULE) is False
    if not (options.embedded or listed):
        return None
    detail = f"the image has {len(vmlinux.symbols)} symbols, none of them the driver's, and no module was built of it"
    return Evidence(EvidenceKind.SYMBOLS, Status.NOT_AFFECTED, detail)


def _why_absent(kernel: Kernel, doubts: Sequence[Doubt]) -> str:
    """Why there is nothing to run, and what would help."""
    if doubts:
        return "; ".join(doubt.detail.rstrip(".") for doubt in doubts)
    if kernel.config is not None and driver_option(kernel.config) == "m":
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
    no_legacy = (result is not None and result.legacy_refused) or any(
        "cannot drive a legacy" in e.detail for e in evidence
    )
    explanation: list[str] = []
    if program is not None and result is not None:
        explanation = list(result.story)
        if result.slot is not None:
            from ejectable.advisories.cve_2024_42134.disassembly import annotated

            explanation = annotated(program, result)
    return verdict(
        ADVISORY.id,
        evidence,
        nothing=nothing,
        justification=NOT_REACHED if no_legacy else NOT_PRESENT,
        explanation=explanation,
        doubt=result is not None and result.doubt,
    )
