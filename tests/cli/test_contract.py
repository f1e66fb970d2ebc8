# SPDX-License-Identifier: GPL-2.0-or-later
"""What users and scripts rely on: the commands, their options, their documents on real input, their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from ejectable.cli.app import COMMANDS, load
from ejectable.model import SEVERITY, Status, exit_code, worst
from ejectable.report import document
from tests.host.trees import NEWER, boot_image

CONTRACT = ("check", "kernel", "crash", "lab", "fix", "explain")
CRASHES = Path(__file__).parent.parent / "crash" / "fixtures"
ENVELOPE = ["schema", "tool", "generated", "status", "summary", "next_steps", "errors"]
COMMON = {
    "--format",
    "--advisory",
    "--no-cache",
    "--jobs",
    "--quiet",
    "--debug",
    "--no-color",
    "--max-unpacked",
    "--exit-zero",
}
CODE = {
    Status.AFFECTED: 2,
    Status.UNKNOWN: 3,
    Status.MITIGATED: 0,
    Status.FIXED: 0,
    Status.NOT_AFFECTED: 0,
}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ejectable", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100"},
        timeout=120,
    )


def test_every_command_of_the_contract_is_there() -> None:
    assert set(CONTRACT) <= set(COMMANDS)
    assert set(CONTRACT) <= set(document.DOCUMENTS)


@pytest.mark.parametrize("name", CONTRACT)
def test_every_command_has_the_common_options_and_examples(name: str) -> None:
    command = load(name)
    assert {option for parameter in command.params for option in parameter.opts} >= COMMON
    examples = (command.epilog or "").partition("Examples:\n")[2].splitlines()
    assert any("ejectable" in line for line in examples)
    assert all(getattr(parameter, "help", None) for parameter in command.params), (
        "every argument and option says what it is"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("crash", str(CRASHES / "defect-disk-acpi-eject-printk.txt")),
        ("crash", str(CRASHES / "healthy-serial.txt")),
        ("crash", str(CRASHES / "near-vp-reset.txt")),
        ("fix", "--offline"),
        ("explain",),
        ("explain", "CVE-2024-42134"),
        ("explain", "is_avq"),
    ],
    ids=" ".join,
)
def test_a_real_answer_is_a_document_of_its_schema_and_its_code_is_that_of_its_status(
    arguments: tuple[str, ...],
) -> None:
    done = _run(*arguments, "--format", "json")
    answer = json.loads(done.stdout)
    schema = json.loads(document.schema(arguments[0]))
    jsonschema.validate(answer, schema, format_checker=jsonschema.FormatChecker())
    assert list(answer)[: len(ENVELOPE)] == ENVELOPE
    assert answer["schema"] == f"ejectable/{arguments[0]}/1"
    assert "\n" not in answer["summary"]
    if arguments[0] in ("check", "crash"):
        assert done.returncode == CODE[Status(answer["status"])]
    assert done.returncode in (0, 2, 3)


@pytest.mark.kernels
def test_a_real_kernel_and_what_is_none_give_one_document(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no kernel at all\n" * 999)
    done = _run("kernel", str(boot_image(NEWER)), str(tmp_path / "none"), "--format", "json", "--explain")
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, json.loads(document.schema("kernel")), format_checker=jsonschema.FormatChecker())
    assert done.returncode == 65, "nothing is affected, and one input is no kernel"
    (kernel,) = answer["kernels"]
    assert (kernel["release"], kernel["arch"], kernel["virtio_pci"]) == (NEWER, "x86_64", "builtin")
    assert kernel["findings"][0]["status"] == "not_affected"
    assert [one["exit_code"] for one in answer["unreadable"]] == [65]


def test_the_text_s_first_line_is_the_answer_that_the_document_gives() -> None:
    answer = json.loads(_run("check", "--format", "json").stdout)
    first, *_ = _run("check", "--quiet").stdout.splitlines()
    word = answer["status"].replace("_", " ").upper()
    # "Not affected" for want of a device, on a kernel that has the defect or was not judged.
    assert first.startswith((word, "NOT EXPOSED") if word == "NOT AFFECTED" else word)
    assert answer["summary"].startswith(first.partition("  ")[2][:40])


def test_exit_zero_changes_the_code_and_nothing_else() -> None:
    log = str(CRASHES / "defect-disk-acpi-eject-printk.txt")
    plain, zero = _run("crash", log), _run("crash", log, "--exit-zero")
    assert (plain.returncode, zero.returncode) == (2, 0)
    assert plain.stdout == zero.stdout


def test_unknown_is_never_rounded_to_a_safe_word() -> None:
    safe = [status for status in Status if CODE[status] == 0]
    assert worst([]) is Status.UNKNOWN
    assert all(worst([Status.UNKNOWN, status]) is Status.UNKNOWN for status in safe)
    assert all(exit_code([status]) == CODE[status] for status in SEVERITY)
    assert exit_code([Status.UNKNOWN, Status.FIXED]) == 3
    assert exit_code([Status.AFFECTED, Status.UNKNOWN], damaged=True) == 2
    assert exit_code([Status.FIXED], damaged=True) == 65
    assert exit_code([]) == 3


def test_json_stays_clean_whatever_is_said_on_standard_error() -> None:
    done = _run("crash", "--format", "json", str(CRASHES / "healthy-serial.txt"), "/nowhere/console.log")
    assert json.loads(done.stdout)["unreadable"]
    assert "/nowhere/console.log" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("kernel",), 64),
        (("kernel", "/nowhere"), 69),
        (("check", "--root", "/nowhere"), 69),
        (("check", "--no-such-option"), 64),
        (("crash", "/nowhere"), 69),
        (("lab", "/nowhere"), 69),
        (("fix", "--root", "/nowhere"), 69),
        (("fix", "nothing"), 64),
        (("explain", "nothing"), 64),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_document_is_printed_whatever_happens(arguments: tuple[str, ...], code: int) -> None:
    done = _run(*arguments, "--format", "json")
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, json.loads(document.schema(arguments[0])), format_checker=jsonschema.FormatChecker())
    assert (done.returncode, answer["status"]) == (code, "unknown")
    assert [error["exit_code"] for error in answer["errors"]] == [code]
    assert done.stderr.startswith("ejectable: ")
