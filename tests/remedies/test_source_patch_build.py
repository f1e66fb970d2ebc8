# SPDX-License-Identifier: GPL-2.0-or-later
"""`--build HEADERS`: the repaired driver compiles against real headers, and its code is run and found fixed."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.patches import apply
from corpus.trees import headers
from corpus.trees import source as kernel_source
from ejectable import host
from ejectable.advisories import choose
from ejectable.advisories.cve_2024_42134.source import Reading
from ejectable.advisories.cve_2024_42134.source_fix import NullTest
from ejectable.errors import BadInput, EjectableError, Missing
from ejectable.intake import DEFAULT_LIMITS
from ejectable.kernel.module import Module
from ejectable.model import EvidenceKind, Status
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.module_build import build
from ejectable.remedies.source_tree import ENCODING, SourceTree, open_tree

pytestmark = pytest.mark.kernels
RELEASE = "6.1.0-50-cloud-amd64"
FIX = NullTest()
COMMON = "drivers/virtio/virtio_pci_common.c"
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def build_tree(name: str = "affected", family: str = "6.1") -> Path:
        top = tmp_path / "linux"
        (top / "drivers/virtio").mkdir(parents=True)
        for file in (kernel_source(family) / "drivers/virtio").iterdir():
            shutil.copy(file, top / "drivers/virtio")
        apply(top / "drivers/virtio", family, name)
        return top

    return build_tree


def situation() -> Situation:
    return Situation(host.Root(), choose(()), cache=False, offline=True)


def test_the_module_that_is_built_is_run_and_kept(make: Make, own_state: Path) -> None:
    top = make("affected-other-guard")
    request = Request(target=str(top), build=str(headers(RELEASE)))
    (line,) = execute.plan(situation(), request, ["source-patch"])
    assert line.commands == (f"ejectable fix source-patch {top} --apply --build {headers(RELEASE)}",)
    done = execute.apply(situation(), "source-patch", request)
    assert done.verified
    assert "was run: fixed" in done.why
    kept = own_state / f"built/virtio_pci-{RELEASE}.ko"
    assert Module(kept.read_bytes(), name=kept.name).elf.build_id
    assert any(str(kept) in step and f"depmod {RELEASE}" in step for step in done.next_steps)
    assert not list((top / "drivers/virtio").glob("*.o")), "nothing is built in the tree"
    execute.undo(situation(), "source-patch", Request(target=str(top)))
    assert not kept.exists()
    assert "vp_dev->is_avq &&" not in (top / COMMON).read_text()


@pytest.mark.parametrize("name", ["affected-inverted", "affected-helper"])
def test_the_compiled_edit_of_a_variant_is_fixed_when_run(make: Make, name: str) -> None:
    top = make(name)
    tree = open_tree(str(top), FIX)
    (top / COMMON).write_bytes(tree.repaired().encode(*ENCODING))
    built = build(tree.again(), str(headers(RELEASE)), DEFAULT_LIMITS)
    assert (built.release, built.finding.status, built.was_run) == (RELEASE, Status.FIXED, True)


def test_a_tree_that_was_never_repaired_is_found_out_by_its_code(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the source reader ever be wrong, the built module says so, and all is taken back."""
    top = make()
    before = (top / COMMON).read_bytes()
    monkeypatch.setattr(
        "ejectable.remedies.source_tree.SourceTree.repaired", lambda tree: tree.reading.common.text + "\n"
    )
    read = open_tree(str(top), FIX)
    wrong = SourceTree(read.given, read.top, Reading(Status.FIXED, "so it seems", read.reading.common), FIX)
    monkeypatch.setattr("ejectable.remedies.source_tree.SourceTree.again", lambda _: wrong)
    with pytest.raises(BadInput, match="affected all the same") as caught:
        execute.apply(situation(), "source-patch", Request(target=str(top), build=str(headers(RELEASE))))
    assert "is as it was before" in (caught.value.hint or "")
    assert (top / COMMON).read_bytes() == before


def test_a_build_that_fails_takes_the_patch_back(make: Make, own_state: Path) -> None:
    top = make()
    (top / COMMON).write_text((top / COMMON).read_text() + "\nint broken(void) { return no_such_thing; }\n")
    before = (top / COMMON).read_bytes()
    with pytest.raises(BadInput, match="no_such_thing") as caught:
        execute.apply(situation(), "source-patch", Request(target=str(top), build=str(headers(RELEASE))))
    assert "virtio_pci_common.c" in caught.value.message
    assert "\n" not in caught.value.message
    assert (top / COMMON).read_bytes() == before
    assert not (own_state / "built").exists()


def refusal(make: Make, where: Path, kind: type[EjectableError]) -> str:
    top = make()
    before = (top / COMMON).read_bytes()
    with pytest.raises(kind) as caught:
        execute.apply(situation(), "source-patch", Request(target=str(top), build=str(where)))
    assert (top / COMMON).read_bytes() == before
    assert caught.value.hint
    return caught.value.message


def test_headers_that_are_none_are_named(make: Make, tmp_path: Path) -> None:
    assert "no such folder" in refusal(make, tmp_path / "nowhere", Missing)


def test_a_tree_that_is_not_prepared_is_no_place_to_build_against(make: Make, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/Makefile").write_text("all:\n")
    assert "include/config/auto.conf" in refusal(make, tmp_path / "raw", Missing)


@pytest.mark.parametrize(("value", "words"), [("CONFIG_VIRTIO_PCI=y\n", "built in"), ("", "switched off")])
def test_a_driver_that_is_no_module_there_is_not_built(make: Make, tmp_path: Path, value: str, words: str) -> None:
    (tmp_path / "top/include/config").mkdir(parents=True)
    (tmp_path / "top/Makefile").write_text("all:\n")
    (tmp_path / "top/include/config/auto.conf").write_text(f"CONFIG_PCI=y\n{value}")
    assert words in refusal(make, tmp_path / "top", BadInput)


def test_the_trees_own_makefile_runs_nothing(make: Make, tmp_path: Path) -> None:
    """Of the tree's Makefile the names of objects are read, and no more."""
    top = make()
    trap = (
        f"$(shell touch {tmp_path}/sprung)\nvirtio_pci-y += ../../evil.o /etc/passwd.o $(shell touch {tmp_path}/s2).o\n"
    )
    makefile = top / "drivers/virtio/Makefile"
    makefile.write_text(makefile.read_text() + trap)
    tree = open_tree(str(top), FIX)
    (top / COMMON).write_bytes(tree.repaired().encode(*ENCODING))
    from ejectable.remedies.module_build import _objects

    assert _objects(tree, {"CONFIG_VIRTIO_PCI_LEGACY": "y"}) == [
        "virtio_pci_modern.o",
        "virtio_pci_common.o",
        "virtio_pci_legacy.o",
    ]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["affected-ternary", "affected-late"])
def test_the_edit_compiles_in_612_too(make: Make, tmp_path: Path, name: str) -> None:
    """There the driver is built in: a module is only for looking at, so it is built by hand here."""
    from ejectable.assess.kernels import judge_path

    top = make(name, "6.12")
    tree = open_tree(str(top), FIX)
    (top / COMMON).write_bytes(tree.repaired().encode(*ENCODING))
    work = tmp_path / "work"
    work.mkdir()
    for file in (top / "drivers/virtio").glob("virtio_pci_*.[ch]"):
        shutil.copy(file, work)
    objects = "virtio_pci_modern.o virtio_pci_common.o virtio_pci_legacy.o"
    (work / "Makefile").write_text(
        f"obj-m := virtio_pci.o\nvirtio_pci-y := {objects}\nccflags-y += -g -Werror=parentheses\n"
    )
    against = headers("6.12.117+deb12-cloud-amd64")
    done = subprocess.run(["make", "-C", against, f"M={work}", "modules"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"virtio_pci_common\.c:\d+.*warning", done.stderr)
    (report,) = judge_path(str(work / "virtio_pci.ko"), tuple(choose(())), DEFAULT_LIMITS).kernels
    (finding,) = report.findings
    assert finding.status is Status.FIXED
    assert any(one.kind is EvidenceKind.EXECUTED and one.says is Status.FIXED for one in finding.evidence)
