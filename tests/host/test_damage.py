# SPDX-License-Identifier: GPL-2.0-or-later
"""No file of an affected machine that is gone, garbled or not a file at all makes `check` call the machine safe."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corpus.archive import cache_folder
from ejectable.cli.app import run
from tests.host.trees import LEGACY_DISK, Machine, affected_module
from tests.one import ONE

pytestmark = pytest.mark.kernels


def _empty(path: Path) -> None:
    path.touch()


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _gone(path: Path) -> None:
    assert not path.exists()


DAMAGES: tuple[Callable[[Path], None], ...] = (_empty, _garbage, _folder, _loop, _gone)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An affected machine with one legacy disk, and a cache that its verdict is kept in."""
    base = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EJECTABLE_CORPUS", str(cache_folder()))  # the test kernels stay where they are
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        tree = Machine(module=affected_module(), devices=(LEGACY_DISK,)).build(base / "tree")
        assert run(["check", *ONE, "--root", str(tree), "--quiet"]) == 2
        yield tree


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_no_single_damage_makes_an_affected_machine_a_safe_one(
    machine: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    for path in sorted(path for path in machine.rglob("*") if path.is_symlink() or path.is_file()):
        aside = path.with_name(f"{path.name}.aside")
        path.rename(aside)
        damage(path)
        try:
            code = run(["check", *ONE, "--root", str(machine), "--quiet"])
        finally:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            aside.rename(path)
        shown = capsys.readouterr()
        assert code in (2, 3), f"{damage.__name__} {path.relative_to(machine)}: {shown.out}"
        assert not shown.err
        tried += 1
    assert tried > 20


@pytest.mark.parametrize("folder", ["sys", "proc", "sys/bus", "sys/devices", "sys/kernel", "sys/module", "boot", "usr"])
def test_nor_does_a_whole_folder_that_is_gone(machine: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = machine / folder
    aside = machine.parent / "aside"
    path.rename(aside)
    try:
        code = run(["check", *ONE, "--root", str(machine), "--quiet"])
    finally:
        aside.rename(path)
    shown = capsys.readouterr()
    assert code in (2, 3), shown.out
    assert not shown.err
