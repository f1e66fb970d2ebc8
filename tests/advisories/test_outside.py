# SPDX-License-Identifier: GPL-2.0-or-later
"""Advisories from outside: of an installed package, and of a folder; asked by every command, and refused if unsafe."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ejectable
from corpus.archive import cache_folder
from ejectable import advisories
from ejectable.advisories import added_folders, choose, registry
from ejectable.cli.app import run
from tests.host.trees import Machine, affected_module

HERE = Path(__file__).with_name("acme_advisory")
ID = "ACME-2026-1"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = Path(shutil.copytree(HERE, tmp_path / "acme", ignore=shutil.ignore_patterns("__pycache__")))
    for path in (place, *place.iterdir()):
        path.chmod(path.stat().st_mode & ~0o022)
    yield place
    advisories._folders.clear()


def test_a_folder_of_advisories_is_taken_and_leaves_nothing_behind(folder: Path) -> None:
    advisories.add_folders([str(folder)])
    assert list(registry())[-1] == ID
    assert list(choose(["made-up"])) == list(choose(["a disk's queues"])) == [ID]
    assert added_folders() == (str(folder),)
    assert not (folder / "__pycache__").exists()
    advisories._folders.clear()
    assert ID not in registry()


@pytest.mark.parametrize("harm", ["folder", "file", "link", "above", "none", "broken", "another"])
def test_a_folder_that_others_could_change_or_that_is_none_is_refused(
    folder: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = folder
    if harm == "folder":
        folder.chmod(0o777)
    elif harm == "file":
        (folder / "facts.toml").chmod(0o666)
    elif harm == "link":
        (folder / "more.py").symlink_to("/dev/null")
    elif harm == "above":
        folder.parent.chmod(0o777)
    elif harm == "none":
        given = folder.parent / "empty"
        given.mkdir()
    elif harm == "broken":
        (folder / "__init__.py").write_text("import no_such_module\n")
    else:
        (folder / "__init__.py").write_text("ADVISORY = 3\n")
    assert run(["explain", "--advisories", str(given)]) == 65
    assert added_folders() == ()
    said = capsys.readouterr().err
    assert str(folder.parent) in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("folder", "code"), [("", 64), ("/no/such/folder", 69), ("/etc/passwd", 65)])
def test_what_is_no_folder_has_the_code_of_what_is_wrong_with_it(folder: str, code: int) -> None:
    """An unset variable above all loads no code of the folder that somebody happens to be in."""
    assert run(["kernel", "--advisories", folder, "/etc/passwd"]) == code


def test_every_command_asks_an_advisory_of_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    common = ["--format", "json", "--advisories", str(folder)]
    for chosen in ((), ("--advisory", ID)):
        assert run(["check", "--root", str(tree), *common, *chosen]) == 2
        answer = json.loads(capsys.readouterr().out)
        ids = [ID] if chosen else list(choose([]))
        assert [finding["advisory"] for finding in answer["kernel"]["findings"]] == ids
        assert (answer["kernel"]["findings"][-1]["status"], answer["kernel"]["findings"][-1]["doubts"]) == (
            "affected",
            [],
        )
        disk, nic = answer["devices"]
        assert {one["advisory"] for one in disk["exposures"]} >= {ID}
        assert not nic["exposures"]
        assert run(["fix", "--root", str(tree), "--offline", *common, *chosen]) == 2
        plan = json.loads(capsys.readouterr().out)["plan"]
        kept = next(one for one in plan if one["remedy"] == "keep-it")
        assert kept["commands"] == ["echo keep 0000:00:06.0"]
    image = next((tree / "boot").glob("vmlinuz-*"))
    assert run(["kernel", "--advisory", ID, str(tree / "boot" / image.name), *common]) in (2, 3)
    assert json.loads(capsys.readouterr().out)["kernels"][0]["findings"][0]["advisory"] == ID
    assert run(["explain", "made-up", *common]) == 0
    assert json.loads(capsys.readouterr().out)["advisory"]["id"] == ID


LOG = """\
[  243.1] INFO: task kworker/0:2:61 blocked for more than 120 seconds.
[  243.1]       Not tainted 6.8.0-31-generic #31-Ubuntu
[  243.1] task:kworker/0:2     state:D stack:0     pid:61    tgid:61    ppid:2      flags:0x00004000
[  243.1] Call Trace:
[  243.1]  <TASK>
[  243.1]  vp_del_vqs+0x6e/0x220
[  243.1]  virtblk_remove+0x3a/0xb0
[  243.1]  virtio_dev_remove+0x3a/0xb0
[  243.1]  </TASK>
"""


def test_an_installed_package_is_asked_in_a_fresh_environment(tmp_path: Path) -> None:
    python = _environment(tmp_path / "env")
    (tmp_path / "log").write_text(LOG)
    assert _run(python, "crash", str(tmp_path / "log"), "--format", "json")["events"][0]["advisory"] == ID
    told = _run(python, "explain", "--advisory", ID, ID, "--format", "json")
    assert told["advisory"]["name"] == "made-up"
    done = subprocess.run(
        [python, "-m", "ejectable", "kernel", "--format", "json", str(affected_module())],
        capture_output=True, text=True, check=False, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    findings = json.loads(done.stdout)["kernels"][0]["findings"]
    assert findings[-1]["advisory"] == ID


def _environment(folder: Path) -> str:
    """A virtual environment that has ejectable, and the advisory installed as a wheel would be."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", str(folder)], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    beside = dict.fromkeys(
        (str(Path(ejectable.__file__).parents[1]), *(path for path in sys.path if "site-packages" in path))
    )
    (site / "beside.pth").write_text("\n".join(beside) + "\n")
    shutil.copytree(HERE, site / "acme_advisory", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "acme_advisory-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-advisory\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ejectable.advisories]\nacme = acme_advisory:ADVISORY\n")
    return str(folder / "bin" / Path(sys.executable).name)


def _run(python: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([python, "-m", "ejectable", *arguments], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_fit_advisory_is_told_with_its_story(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    assert run(["advisory", "check", str(folder), "--kernel", str(tree)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{ID}  ")
    assert "affected: yes: vp_del_vqs" in told
    assert "Nothing is wrong with it." in told


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("facts.toml", 'id = "ACME-2026-1"', 'id = "ACME-2026-2"', "facts.toml is of ACME-2026-2"),
        ("facts.toml", 'source = "made up"', 'source = ""', "names no source"),
        ("facts.toml", 'role = "introduced"', 'role = "begun"', "not 'begun'"),
        ("facts.toml", "https://", "http://", "no https:// address"),
        ("facts.toml", 'function = "vp_del_vqs"', 'function = "x"', "none of the code's"),
        ("__init__.py", 'needs=("virtblk_remove",)', 'needs=("(",)', "is none"),
        ("__init__.py", 'device.kind == "disk" else None', "device.nodes[0] else None", "it fails: IndexError"),
        ("__init__.py", "for empty in (True, False)", "for empty in (True, True)", "went the same way"),
        ("__init__.py", "return bench.decide(affected=seen, fixed=~seen)",
         "import random; return bench.not_there(str(random.random()))", "came to something else"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_advisory_is_named(  # noqa: PLR0917  (pytest's fixtures, and one row of the table)
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, said: str
) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new).replace("fixed=~seen", "fixed=ends(without) & ends(with_list)"))
    tree = Machine(module=affected_module()).build(tmp_path / "tree")
    assert run(["advisory", "check", str(folder), *(["--kernel", str(tree)] if file == "__init__.py" else [])]) == 65
    assert said in " ".join(capsys.readouterr().out.split())
