# SPDX-License-Identifier: GPL-2.0-or-later
"""`import ejectable` is the public interface: what it lists, what it costs, and that its examples run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ejectable

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs/python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
CRASH = ROOT / "tests/crash/fixtures/defect-disk-acpi-eject-printk.txt"
# What others rely on: a name may be added here, and none taken away.
NAMES = {
    "CheckDocument",
    "CrashDocument",
    "Doubt",
    "DoubtKind",
    "EjectableError",
    "Evidence",
    "EvidenceKind",
    "Finding",
    "KernelDocument",
    "Status",
    "__version__",
    "check_machine",
    "encode",
    "judge_kernels",
    "read_logs",
    "schema",
}


def test_the_list_of_names_is_the_one_that_others_rely_on() -> None:
    assert set(ejectable.__all__) == NAMES
    assert set(dir(ejectable)) >= NAMES
    assert all(getattr(ejectable, name) is not None for name in NAMES)
    with pytest.raises(AttributeError):
        _ = ejectable.nothing_of_this_name


def test_every_name_is_in_the_document() -> None:
    assert [name for name in NAMES if f"`{name}" not in DOCUMENT] == []


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, ejectable; print([name for name in sys.modules if name.startswith(('ejectable.', 'msgspec'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_log_is_judged_and_its_document_is_of_the_schema() -> None:
    answer = ejectable.read_logs(CRASH)
    assert answer.status is ejectable.Status.AFFECTED
    assert "CVE-2024-42134" in [event.advisory for event in answer.events]
    jsonschema.validate(json.loads(ejectable.encode(answer)), json.loads(ejectable.schema("crash")))


def test_what_cannot_be_read_is_an_error_in_the_answer_and_never_safe(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no kernel at all\n" * 999)
    answers = (
        ejectable.judge_kernels(tmp_path / "none"),
        ejectable.judge_kernels(tmp_path / "missing"),
        ejectable.read_logs(tmp_path / "missing"),
        ejectable.check_machine(tmp_path / "missing"),
    )
    assert [answer.status for answer in answers] == [ejectable.Status.UNKNOWN] * 4
    assert [answer.errors[0].exit_code for answer in answers] == [65, 69, 69, 69]


def test_a_question_that_cannot_be_asked_is_raised() -> None:
    with pytest.raises(ejectable.EjectableError):
        ejectable.judge_kernels("vmlinuz", advisories=("CVE-1999-0001",))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[2].split("(")[0])
def test_the_examples_run_as_they_stand(example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").write_bytes(b"no kernel at all\n" * 999)
    names: dict[str, Any] = {"folder": tmp_path, "tree": tmp_path, "log": CRASH}
    exec(compile(example, "docs/python.md", "exec"), names)
    shown = capsys.readouterr().out
    assert any(word in shown for word in ("kernel", "stop", "vp_del_vqs"))
    assert "go on" not in shown
