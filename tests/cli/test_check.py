# SPDX-License-Identifier: GPL-2.0-or-later
"""`check` of one root and of several: every one is judged, the worst wins, and there is a document in any case."""

import itertools
import json
from pathlib import Path

import jsonschema
import pytest

from corpus.archive import cache_folder
from ejectable.cli.app import run
from ejectable.report import document
from tests.host.trees import Machine, affected_module
from tests.one import ONE

pytestmark = pytest.mark.kernels


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A tree of each kind, by the exit code that it alone has; 69 is not there."""
    monkeypatch.setenv("EJECTABLE_CORPUS", str(cache_folder()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machines = {
        "0": Machine(module=affected_module("fixed")),
        "2": Machine(module=affected_module()),
        "3": Machine(image=False, running_build_id="ab" * 20),
    }
    return {code: str(machine.build(tmp_path / code)) for code, machine in machines.items()} | {
        "69": str(tmp_path / "gone")
    }


def _check(*roots: str, options: tuple[str, ...] = ()) -> int:
    return run(["check", *ONE, *(word for root in roots for word in ("--root", root)), *options])


def _document(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, json.loads(document.schema("check")), format_checker=jsonschema.FormatChecker())
    return found


def test_of_several_roots_the_worst_wins_in_any_order(
    trees: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for codes in itertools.permutations(trees, 2):
        code = next(worst for worst in ("2", "3", "69", "0") if worst in codes)
        assert _check(*(trees[one] for one in codes), options=("--quiet",)) == int(code), codes
    capsys.readouterr()
    assert _check(*trees.values()) == 2
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "4 machines: 1 affected, 1 unknown, 1 fixed, 1 unreadable."
    assert all(root in shown.out + shown.err for root in trees.values())


def test_the_document_of_several_has_each_and_the_worst_on_top(
    trees: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _check(*trees.values(), options=("--format", "json")) == 2
    found = _document(capsys)
    machines, errors = found["machines"], found["errors"]
    assert isinstance(machines, list)
    assert isinstance(errors, list)
    assert [one["root"] for one in machines] == list(trees.values())
    assert [one["status"] for one in machines] == ["fixed", "affected", "unknown", "unknown"]
    assert (found["status"], found["root"]) == ("affected", trees["2"])
    assert [(one["path"], one["exit_code"]) for one in errors] == [(trees["69"], 69)]


def test_a_document_is_printed_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_file = tmp_path / "file"
    a_file.touch()
    for root, code in ((tmp_path / "gone", 69), (a_file, 65)):
        assert _check(str(root), options=("--format", "json")) == code
        found = _document(capsys)
        errors = found["errors"]
        assert isinstance(errors, list)
        assert (found["status"], found["root"], errors[0]["exit_code"]) == ("unknown", str(root), code)
        assert found["summary"]
        assert errors[0]["hint"] is None or errors[0]["hint"] in str(found["next_steps"])


def test_one_root_is_named_in_its_document(trees: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _check(trees["0"], options=("--format", "json")) == 0
    found = _document(capsys)
    assert (found["root"], found["errors"], found["machines"]) == (trees["0"], [], [])
