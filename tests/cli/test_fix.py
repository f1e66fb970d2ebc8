# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix` as it is typed: exit codes, documents, the first line, and that nothing changes without --apply."""

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import pytest

from ejectable import host
from ejectable.cli.app import run
from ejectable.remedies import state
from ejectable.report import document
from tests.host.trees import Machine, affected_module
from tests.one import ONE

pytestmark = pytest.mark.kernels


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(state, "SYSTEM", tmp_path / "state/ejectable")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def affected(tmp_path: Path) -> Path:
    return Machine(module=affected_module(), panic_on_oops=0).build(tmp_path / "machine")


def fingerprint(tree: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        about = path.lstat()
        digest.update(f"{path}:{about.st_mode}:{about.st_mtime_ns}:{about.st_size}\n".encode())
    return digest.hexdigest()


def test_the_plan_is_read_only_and_its_first_line_answers(affected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(affected)
    assert run(["fix", *ONE, "--offline", "--root", str(affected)]) == 2
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("AFFECTED  Unplugging vdb would Oops, and this machine would limp on")
    assert "panic-policy  RECOMMENDED" in rest
    assert fingerprint(affected) == before


def test_the_plan_is_a_document_of_its_schema(affected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fix", *ONE, "--offline", "--root", str(affected), "--format", "json"]) == 2
    plan = json.loads(capsys.readouterr().out)
    jsonschema.validate(plan, json.loads(document.schema("fix")), cls=jsonschema.Draft202012Validator)
    assert plan["status"] == "affected"
    assert plan["applied"] is None
    assert [line["state"] for line in plan["plan"]].count("done") == 0


def test_applying_and_undoing_answer_0_and_are_documents_of_the_schema(
    affected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(affected.rglob("*"))
    for option, undo in (
        ("--apply", f"sudo ejectable fix panic-policy --undo --root {affected}"),
        ("--undo", None),
    ):
        assert run(["fix", *ONE, "panic-policy", option, "--root", str(affected), "--format", "json"]) == 0
        done = json.loads(capsys.readouterr().out)
        jsonschema.validate(done, json.loads(document.schema("fix")), cls=jsonschema.Draft202012Validator)
        assert done["status"] == "affected", "the machine stays what it is"
        assert done["applied"]["verified"] is True
        assert done["applied"]["undo"] == undo
        assert done["applied"]["changes"]
    assert set(affected.rglob("*")) == before, "no record is kept in the tree itself"


def test_a_machine_with_nothing_to_fear_answers_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Machine(module=affected_module("fixed")).build(tmp_path / "machine")
    assert run(["fix", *ONE, "--offline", "--root", str(tree)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("FIXED")
    assert "RECOMMENDED" not in out
    assert "not possible" not in out
    assert "Nothing has to be done." in " ".join(out.split())
    run(["fix", *ONE, "--offline", "--root", str(tree), "--verbose"])
    assert "not possible" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fix", "prayer"], "There is no remedy 'prayer'."),
        (["fix", "--apply"], "Which remedy?"),
        (["fix", "panic-policy", "--apply", "--undo"], "opposites"),
        (["fix", "panic-policy", "somewhere"], "takes no 'somewhere'"),
        (["fix", "upgrade", "--to", "ecs.g8i.large"], "`upgrade` takes no --to."),
        (["fix", "upgrade", "--persist"], "`upgrade` takes no --persist."),
        (["fix", "live", "--build", "/usr/src/linux"], "It takes: --persist."),
        (["fix", "panic-policy", "--device", "vdb"], "no option of its own"),
        (["fix", "source-patch", "--region", "cn-hangzhou"], "It takes: a tree, --build."),
        (["fix", "instance-type", "--undo", "--persist"], "It takes: --to, --instance, --region."),
        (["fix", "--advisory", "CVE-1999-0001"], "no advisory"),
    ],
)
def test_wrong_usage_is_64_with_a_way_out(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 64
    captured = capsys.readouterr()
    assert said in captured.err
    assert not captured.out


def test_without_root_applying_says_how(
    affected: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["fix", *ONE, "panic-policy", "--apply", "--root", str(affected)]) == 69
    assert f"sudo ejectable fix panic-policy --apply --root {affected}" in capsys.readouterr().err


def test_an_interrupted_change_is_told(affected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = state.folder_of(host.Root(affected)) / "changes"
    changes.mkdir(parents=True)
    record = {
        "format": 2,
        "number": 1,
        "remedy": "panic-policy",
        "started": "2026-01-01T00:00:00Z",
        "state": "open",
        "steps": [],
    }
    (changes / "000001.json").write_text(json.dumps(record))
    run(["fix", *ONE, "--offline", "--root", str(affected)])
    assert "A change was interrupted (`fix panic-policy`" in " ".join(capsys.readouterr().out.split())


def test_what_was_taken_back_is_not_called_done(affected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["fix", *ONE, "panic-policy", "--apply", "--root", str(affected)])
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("`panic-policy` is done and verified.")
    assert f"To take it back: `sudo ejectable fix panic-policy --undo --root {affected}`" in out
    assert run(["fix", *ONE, "panic-policy", "--undo", "--root", str(affected)]) == 0
    assert capsys.readouterr().out.startswith("`panic-policy` is taken back. Everything is as it was before.")


def test_every_command_of_a_trees_plan_names_the_tree_or_its_machine(
    affected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for machine in (affected, affected.parent / "empty"):
        machine.mkdir(exist_ok=True)
        run(["fix", *ONE, "--offline", "--root", str(machine), "--format", "json"])
        plan = json.loads(capsys.readouterr().out)
        commands = [command for line in plan["plan"] for command in line["commands"]]
        # Those change nothing, or ask for what is to be changed.
        harmless = ("ejectable fix source-patch TREE", "aliyun ")
        assert not [
            one for one in commands if str(machine) not in one and "web-1" not in one and not one.startswith(harmless)
        ]
