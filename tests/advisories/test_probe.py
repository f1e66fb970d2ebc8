# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2024-42134 is told from real code: Debian's kernels, and their modules with the faulty callback put back."""

import os
import re
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from corpus.archive import fetch
from corpus.compilers import Compiler
from corpus.list import HARDENED
from corpus.modules import Module
from corpus.patches import VARIANTS, apply
from corpus.trees import source as source_tree
from ejectable.advisories import registry
from ejectable.advisories.cve_2024_42134.source import source
from ejectable.errors import Missing
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.model import EvidenceKind, Finding, Status

ADVISORY = registry()["CVE-2024-42134"]
NEVER_INTRODUCED = ("linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1.0-50-cloud-arm64")
REDESIGNED = ("linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-arm64")
# One module for each way that a compiler or a vendor may have gone; the whole product is the corpus's business.
MODULES = (
    Module(),
    Module(variant="fixed"),
    Module(variant="affected-helper"),
    Module(variant="affected-late"),
    Module(variant="affected-first", release="6.1.0-50-cloud-arm64"),
    Module(variant="fixed-is-legacy"),
    Module(variant="fixed-feature"),
    Module(variant="fixed-legacy-probe"),
    Module(variant="fixed-helper-outline"),
    Module(compiler="clang-16"),
    Module(compiler="clang-16", variant="fixed"),
    Module(release="6.1.0-50-cloud-arm64"),
    Module(release="6.1.0-50-cloud-arm64", variant="fixed"),
    Module(btf=False),
    Module(opt="Os"),
    Module(retpoline=False),
    Module(legacy=False),
)


def missing(error: Missing) -> NoReturn:
    assert not os.environ.get("CI"), error
    pytest.skip(str(error))


def first(path: object) -> Kernel:
    kernel = next(iter(open_kernels(str(path))))
    assert isinstance(kernel, Kernel)
    return kernel


def says(finding: Finding, kind: EvidenceKind) -> Status | None:
    return next((item.says for item in finding.evidence if item.kind is kind), None)


@pytest.mark.kernels
@pytest.mark.parametrize("package", [*NEVER_INTRODUCED, *REDESIGNED])
def test_debians_kernels_are_not_affected_and_their_code_was_run(package: str) -> None:
    try:
        path = fetch(package, package.rpartition("-")[2])
    except Missing as error:
        missing(error)
    finding = ADVISORY.probe(first(path))
    assert (finding.status, finding.justification) == (Status.NOT_AFFECTED, "vulnerable_code_not_present")
    assert says(finding, EvidenceKind.EXECUTED) is Status.NOT_AFFECTED
    assert says(finding, EvidenceKind.TYPES) is Status.NOT_AFFECTED
    assert not finding.conflict
    assert "Both queues were deleted" in "\n".join(finding.explanation)


@pytest.mark.kernels
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_judged_as_it_was_built(module: Module) -> None:
    try:
        path = module.path()
    except Missing as error:
        missing(error)
    expected = VARIANTS[module.variant].expected if module.legacy else "not_affected"
    finding = ADVISORY.probe(first(path))
    assert finding.status == expected, finding.reason
    assert says(finding, EvidenceKind.EXECUTED) == expected
    # The disassembly may know less, but nothing else.
    assert says(finding, EvidenceKind.DISASSEMBLY) in (expected, Status.UNKNOWN, None)
    if expected == "affected":
        assert "fetched address 0x0" in "\n".join(finding.explanation)
        # 6.1 never had the feature upstream. A number that differs from the code is shown, and is no conflict.
        assert says(finding, EvidenceKind.VERSION) is Status.NOT_AFFECTED
    assert not finding.conflict
    if not module.legacy:
        assert finding.justification == "vulnerable_code_not_in_execute_path"


@pytest.mark.kernels
@pytest.mark.parametrize("hardened", HARDENED, ids=" ".join)
def test_a_module_is_judged_whatever_its_kernel_was_hardened_with(hardened: tuple[str, str, Compiler]) -> None:
    release, hardening, compiler = hardened
    for variant in ("affected", "fixed"):
        module = Module(
            release=release, variant=variant, hardening=hardening, compiler=compiler, btf=hardening != "lto"
        )
        try:
            path = module.path()
        except Missing as error:
            missing(error)
        finding = ADVISORY.probe(first(path))
        assert finding.status == variant, finding.reason


@pytest.mark.kernels
def test_what_was_run_names_the_same_instruction_as_what_was_read() -> None:
    try:
        finding = ADVISORY.probe(first(Module().path()))
    except Missing as error:
        missing(error)
    places = {item.kind: re.search(r"vp_del_vqs\+0x[0-9a-f]+", item.detail) for item in finding.evidence}
    executed, disassembly = places[EvidenceKind.EXECUTED], places[EvidenceKind.DISASSEMBLY]
    assert executed
    assert disassembly
    assert executed[0] == disassembly[0]


@pytest.mark.kernels
def test_the_explanation_names_the_instruction_that_objdump_shows() -> None:
    import subprocess

    try:
        path = Module().path()
    except Missing as error:
        missing(error)
    explanation = ADVISORY.probe(first(path)).explanation
    (call,) = [line for line in explanation if line.startswith("=>")]
    offset = int(call.partition("+")[2].partition(">")[0], 16)
    dump = subprocess.run(
        ["objdump", "-dr", "--disassemble=vp_del_vqs", path], capture_output=True, text=True, check=True
    ).stdout
    start = int(next(line for line in dump.splitlines() if "<vp_del_vqs>:" in line).split()[0], 16)
    lines = dump.splitlines()
    at = next(index for index, line in enumerate(lines) if line.strip().startswith(f"{start + offset:x}:"))
    assert "call" in lines[at]
    assert "__x86_indirect_thunk" in lines[at + 1]


@pytest.mark.kernels
def test_an_image_whose_module_was_not_given_is_unknown_and_says_what_to_give(tmp_path: Path) -> None:
    try:
        package = fetch("linux-image-6.1.0-50-cloud-amd64")
    except Missing as error:
        missing(error)
    kernel = first(package)
    assert kernel.member is not None
    import io
    import subprocess
    import tarfile

    tarball = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        member = next(m for m in archive if "/vmlinuz-" in m.name)
        content = archive.extractfile(member)
        assert content is not None
        (tmp_path / "vmlinuz").write_bytes(content.read())
    finding = ADVISORY.probe(first(tmp_path / "vmlinuz"))
    assert finding.status is Status.UNKNOWN
    assert "module" in finding.reason
    # A version alone decides nothing.
    assert says(finding, EvidenceKind.VERSION) is Status.NOT_AFFECTED


CASES = [(family, name) for family in ("6.1", "6.12") for name in VARIANTS if family in VARIANTS[name].families]


@pytest.mark.kernels
@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_source_tree_is_read_as_it_was_edited(family: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "drivers/virtio"
    folder.mkdir(parents=True)
    try:
        tree = source_tree(family)
    except Missing as error:
        missing(error)
    for file in (tree / "drivers/virtio").glob("virtio_pci_*.[ch]"):
        shutil.copy(file, folder)
    apply(folder, family, name)
    evidence = source(tmp_path)
    assert evidence is not None
    assert evidence.says == VARIANTS[name].expected, evidence.detail
