# SPDX-License-Identifier: GPL-2.0-or-later
"""Root works on a user's tree with that user's rights: files, git and make, and nothing that only root may."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpus.patches import apply
from corpus.trees import source as kernel_source
from ejectable import host
from ejectable.advisories.cve_2024_42134.source_fix import NullTest
from ejectable.errors import Denied, EjectableError, Missing
from ejectable.model import Status
from ejectable.remedies import Request, Situation, execute, machine_files
from ejectable.remedies.acting import Owner, acting_as, as_ourselves, owner_of
from ejectable.remedies.commands import run
from ejectable.remedies.module_build import build
from ejectable.remedies.source_tree import open_tree
from tests.host.trees import affected_module
from tests.one import the_first

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]
COMMON = "drivers/virtio/virtio_pci_common.c"
USER, OTHER = 1234, 1235
Make = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder of root's that everybody may enter."""
    opened = [path for path in (tmp_path, *tmp_path.parents) if "pytest" in str(path)]
    modes = [path.stat().st_mode & 0o777 for path in opened]
    for path in opened:
        path.chmod(0o755)
    yield tmp_path
    for path, mode in zip(opened, modes, strict=True):
        path.chmod(mode)


@pytest.fixture
def tree(place: Path) -> Path:
    """The affected driver in a user's tree."""
    top = place / "home" / "linux"
    (top / "drivers/virtio").mkdir(parents=True)
    for file in (kernel_source("6.1") / "drivers/virtio").glob("virtio_pci*"):
        shutil.copy(file, top / "drivers/virtio")
    apply(top / "drivers/virtio", "6.1", "affected")
    give(top.parent, USER)
    return top


def give(top: Path, uid: int) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def recorder(folder: Path, program: str) -> Path:
    """A program of root's, in a folder of root's, that notes who runs it."""
    folder.mkdir()
    log = folder / "log"
    log.touch()
    log.chmod(0o666)
    path = folder / program
    real = shutil.which(program)
    path.write_text(f'#!/bin/sh\necho "$(id -u) $(id -ru) $(id -G)" >> {log}\nexec {real} "$@"\n')
    path.chmod(0o755)
    return log


def situation() -> Situation:
    return Situation(host.Root(), the_first(), cache=False, offline=True)


def patch(tree: Path, *, undo: bool = False) -> None:
    (execute.undo if undo else execute.apply)(situation(), "source-patch", Request(target=str(tree)))


def test_the_patch_is_made_and_taken_back_with_the_owners_rights(tree: Path, own_state: Path) -> None:
    before = (tree / COMMON).read_bytes()
    patch(tree)
    assert b"vp_dev->is_avq &&" in (tree / COMMON).read_bytes()
    assert (tree / COMMON).stat().st_uid == USER
    assert {path.stat().st_uid for path in own_state.rglob("*")} == {0}, "what is recorded is root's"
    patch(tree, undo=True)
    assert (tree / COMMON).read_bytes() == before
    assert (tree / COMMON).stat().st_uid == USER
    assert os.geteuid() == 0


def test_what_the_owner_may_not_do_root_does_not_do_there(tree: Path, own_state: Path) -> None:
    (tree / "drivers/virtio").chmod(0o555)
    with pytest.raises(Missing, match="Permission denied"):
        patch(tree)
    (tree / COMMON).chmod(0o000)
    with pytest.raises(Missing, match="may not be read"):
        patch(tree)


@pytest.mark.parametrize("part", ["", "drivers", "drivers/virtio", COMMON, ".git"])
def test_a_tree_of_several_owners_is_refused(tree: Path, own_state: Path, part: str) -> None:
    (tree / ".git").mkdir()
    os.chown(tree / ".git", USER, USER)
    for uid in (OTHER, 0):
        if uid == 0 and part == "":
            continue  # the user's folders in one of root's are the user's, who could not have made it otherwise
        os.chown(tree / part, uid, uid)
        with pytest.raises(Denied, match="to user") as caught:
            patch(tree)
        assert "chown" in (caught.value.hint or "")
    (line,) = execute.plan(situation(), Request(target=str(tree)), ["source-patch"])
    assert line.state == ("possible" if part == COMMON else "impossible")


def test_a_tree_that_somebody_else_could_replace_is_refused(tree: Path, own_state: Path) -> None:
    os.chown(tree.parent, OTHER, OTHER)
    with pytest.raises(Denied, match=f"belongs to user {OTHER}"):
        patch(tree)
    give(tree.parent, 0)
    tree.chmod(0o777)
    with pytest.raises(Denied, match="anybody may write"):
        patch(tree)


def test_a_link_of_a_user_leads_root_nowhere_but_to_the_users_own(tree: Path, place: Path) -> None:
    """Between the look and the change the owner may put a link in the place of a file or of a folder."""
    secret = place / "secret"
    secret.mkdir()
    (secret / "virtio_pci_common.c").write_text("root's\n")
    (secret / "virtio_pci_common.c").chmod(0o600)
    root = host.Root()
    for name, target in ((COMMON, secret / "virtio_pci_common.c"), ("drivers/virtio", secret)):
        (tree / name).rename(tree / "aside")
        (tree / name).symlink_to(target)
        with pytest.raises(Denied, match="whose tree is it"):
            machine_files.look(root, str(tree / COMMON))
        with pytest.raises((EjectableError, OSError)):
            machine_files.write(root, str(tree / "drivers/virtio/../../link/x"), b"", mode=0o644)
        (tree / name).unlink()
        (tree / "aside").rename(tree / name)
    (tree / "own").symlink_to("drivers/virtio")
    assert machine_files.look(root, str(tree / "own/virtio_pci_common.c")).real == str(tree / COMMON)


def test_git_runs_as_the_owner(tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recorder(place / "bin", "git")
    monkeypatch.setenv("PATH", f"{log.parent}:{os.environ['PATH']}")
    (tree / ".git").mkdir()
    os.chown(tree / ".git", USER, USER)
    execute.plan(situation(), Request(target=str(tree)), ["source-patch"])
    said = set(log.read_text().splitlines())
    assert said == {f"{USER} {USER} {USER}"}


def test_make_runs_as_the_owner_and_what_it_made_is_judged_and_kept_by_root(
    tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headers are root's; what they make of the user's sources may be anything, here an affected module."""
    headers = place / "headers"
    (headers / "include/config").mkdir(parents=True)
    (headers / "include/config/auto.conf").write_text("CONFIG_VIRTIO_PCI=m\nCONFIG_X86_64=y\n")
    (headers / "Makefile").write_text(f"modules:\n\tcp {headers}/made.ko $(M)/virtio_pci.ko\n")
    shutil.copyfile(affected_module(), headers / "made.ko")  # the kept one may be root's alone to read
    (headers / "made.ko").chmod(0o644)
    log = recorder(place / "bin", "make")
    monkeypatch.setenv("PATH", f"{log.parent}:{os.environ['PATH']}")
    built = build(open_tree(str(tree), NullTest()), str(headers), situation().limits)
    assert log.read_text() == f"{USER} {USER} {USER}\n"
    assert built.module == affected_module().read_bytes(), "what was judged is what is kept"
    assert built.finding.status is Status.AFFECTED


def test_a_program_that_is_started_for_a_user_has_no_way_back(place: Path) -> None:
    with acting_as(Owner(USER, USER)):
        who = run(["sh", "-c", "id -u; id -ru; id -G; grep -E '^(Uid|Gid|CapPrm)' /proc/self/status"], timeout_s=10).out
        assert os.geteuid() == USER
        with as_ourselves():
            assert os.geteuid() == 0
        assert os.geteuid() == USER
        with pytest.raises(Denied), acting_as(Owner(OTHER, OTHER)):
            pass
    assert (os.geteuid(), os.getegid()) == (0, 0)
    lines = who.split("\n")
    assert lines[:3] == [str(USER)] * 3
    assert lines[3].split()[1:] == [str(USER)] * 4, "the saved one too"
    assert lines[5].split()[1] == "0" * 16


def test_programs_of_a_user_are_not_run_for_them_by_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recorder(place / "bin", "true")
    give(log.parent, USER)
    monkeypatch.setenv("PATH", f"{log.parent}:{os.environ['PATH']}")
    with acting_as(Owner(USER, USER)):
        assert run(["true"], timeout_s=10).ok
    assert log.read_text() == ""


def test_roots_own_tree_is_roots(place: Path) -> None:
    assert owner_of(place) is None
    with acting_as(None):
        assert os.geteuid() == 0
