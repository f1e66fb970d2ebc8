# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that hide the defect are never called safe, and what could not be decided is said."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from corpus.list import paired_tree
from corpus.modules import Module
from corpus.patches import apply
from corpus.traps import TRAPS
from corpus.trees import source as tree
from ejectable.advisories import registry
from ejectable.advisories.cve_2024_42134.source import source
from ejectable.errors import Missing
from ejectable.kernel.open import Kernel, open_kernels
from ejectable.model import EvidenceKind, Finding, Status

pytestmark = pytest.mark.kernels

ADVISORY = registry()["CVE-2024-42134"]
ARM = "6.1.0-50-cloud-arm64"
# Where the code alone proves it, with the kernel's types at hand.
PROVEN = ("trap-second-call", "trap-other-devices", "trap-renamed", "trap-low-feature", "trap-copy", "trap-far-helper")


def built(module: Module) -> Path:
    try:
        return module.path()
    except Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def judged(path: Path) -> Finding:
    kernel = next(iter(open_kernels(str(path))))
    assert isinstance(kernel, Kernel)
    return ADVISORY.probe(kernel)


@pytest.mark.parametrize("name", TRAPS)
def test_a_module_alone_is_not_called_safe(name: str) -> None:
    for release in (Module().release, ARM):
        finding = judged(built(Module(variant=name, release=release)))
        assert finding.status in (Status.AFFECTED, Status.UNKNOWN), (release, finding.explanation)
        assert finding.reason


@pytest.mark.parametrize("name", TRAPS)
def test_a_module_beside_its_kernel_is_not_called_safe(name: str) -> None:
    module = Module(variant=name)
    built(module)
    finding = judged(paired_tree(module))
    if name in PROVEN:
        assert finding.status is Status.AFFECTED, finding.explanation
    else:
        assert finding.status in (Status.AFFECTED, Status.UNKNOWN), finding.explanation
    assert finding.reason


@pytest.mark.parametrize("name", TRAPS)
def test_its_source_is_not_called_safe(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "drivers/virtio"
    folder.mkdir(parents=True)
    for file in (tree("6.1") / "drivers/virtio").glob("virtio_pci_*.[ch]"):
        shutil.copy(file, folder)
    apply(folder, "6.1", name, TRAPS)
    evidence = source(tmp_path)
    assert evidence is not None
    assert evidence.says in (Status.AFFECTED, Status.UNKNOWN), evidence.detail


@pytest.mark.parametrize("name", ["affected", "trap-second-call", "trap-static-key"])
def test_symbols_that_were_stripped_away_prove_nothing(name: str, tmp_path: Path) -> None:
    stripped = tmp_path / "virtio_pci.ko"
    module = built(Module(variant=name, btf=False))
    subprocess.run(["strip", "--discard-all", "--strip-debug", "-o", stripped, module], check=True)
    assert judged(stripped).status in (Status.AFFECTED, Status.UNKNOWN)


@pytest.mark.parametrize(("shipped", "update"), [("fixed", "affected"), ("affected", "fixed")])
def test_the_module_that_would_be_loaded_is_judged(shipped: str, update: str, tmp_path: Path) -> None:
    """updates/ comes before kernel/: depmod.d(5)."""
    built(Module(variant=shipped))
    root = tmp_path / "root"
    shutil.copytree(paired_tree(Module(variant=shipped)), root)
    folder = root / "lib/modules" / Module().release / "updates/dkms"
    folder.mkdir(parents=True)
    shutil.copy(built(Module(variant=update)), folder)
    (folder.parents[1] / "modules.dep").write_text("updates/dkms/virtio_pci.ko:\n")
    assert judged(root).status == update


def test_a_configuration_that_contradicts_the_code_is_another_kernels(tmp_path: Path) -> None:
    built(Module())
    root = tmp_path / "root"
    shutil.copytree(paired_tree(Module()), root)
    (root / "boot" / f"config-{Module().release}").write_text("# CONFIG_VIRTIO_PCI is not set\n")
    finding = judged(root)
    assert finding.status is Status.AFFECTED
    (config,) = [item for item in finding.evidence if item.kind is EvidenceKind.CONFIG]
    assert config.says is Status.UNKNOWN
    assert "another kernel's" in config.detail
