# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line keeps the contract: exit codes, streams, help, completion."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ejectable.cli.app import COMMANDS

EJECTABLE = str(Path(sys.executable).with_name("ejectable"))


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ejectable", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("--nothing",),
        ("kernel",),
        ("kernel", "--nothing", "x"),
        ("kernel", "--format", "yaml", "x"),
        ("kernel", "--jobs", "many", "x"),
        ("kernel", "--jobs", "-1", "x"),
        ("kernel", "--max-unpacked", "huge", "x"),
        ("kernel", "--max-unpacked", "0", "x"),
        ("kernel", "--advisory", "CVE-1999-0001", "/dev/null"),
        ("check", "surplus"),
        ("check", "--root"),
        ("schema",),
        ("schema", "nothing"),
    ],
)
def test_wrong_usage_of_every_kind_leaves_with_64(arguments: tuple[str, ...]) -> None:
    done = _run(*arguments)
    assert done.returncode == 64, done.stderr
    assert not done.stdout
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_is_answered_with_the_right_one() -> None:
    assert "'check'" in _run("chek").stderr


def test_version_is_one_line() -> None:
    done = _run("--version")
    assert (done.returncode, done.stdout.split()[0], done.stdout.count("\n")) == (0, "ejectable", 1)


def test_help_lists_every_command_and_imports_none() -> None:
    done = _run("--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    code = (
        "import sys; from ejectable.cli.app import run; run(['--help']); "
        "print(sorted(m for m in sys.modules if m.removeprefix('ejectable.cli.') in sys.argv[1:]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_as_they_stand(name: str) -> None:
    done = _run(name, "--help")
    assert done.returncode == 0
    examples = done.stdout.partition("Examples:\n")[2].splitlines()
    assert examples
    assert any("ejectable " in line for line in examples)
    assert all(line.startswith("  ") for line in examples if line.strip())


def test_completion_offers_commands_options_and_values() -> None:
    def complete(line: str, at: int) -> list[str]:
        lines = _run(_EJECTABLE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(at)).stdout.split()
        return [line.partition(",")[2] for line in lines]

    assert complete("ejectable ch", 1) == ["check"]
    assert "--root" in complete("ejectable check --", 2)
    assert complete("ejectable check --format ", 3) == ["text", "json"]
    assert "kernel" in complete("ejectable schema ", 2)
    assert "panic-policy" in complete("ejectable fix ", 2)
    assert complete("ejectable lab --device b", 3) == ["balloon"]
    assert complete("ejectable lab --device disk,n", 3) == ["disk,nic"]


def test_an_option_without_effect_is_understood_and_not_offered() -> None:
    assert "--jobs" not in _run("explain", "--help").stdout
    assert _run("explain", "--jobs", "2", "69").returncode == 0


def test_completion_is_shown_for_a_shell_that_has_it_and_refused_for_another(tmp_path: Path) -> None:
    for name, code in (("bash", 0), ("dash", 64)):
        # It asks which shell has started it; one that ends with the command would be replaced by it.
        script = f'"{sys.executable}" -m ejectable --show-completion >"{tmp_path}/{name}"; echo $?'
        done = subprocess.run([name, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(code), done.stderr
    assert "_EJECTABLE_COMPLETE" in (tmp_path / "bash").read_text()


def test_a_file_that_is_not_there_is_named_and_leaves_with_69() -> None:
    done = _run("kernel", "/nowhere/vmlinuz")
    assert done.returncode == 69
    assert "/nowhere/vmlinuz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fifo_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/zero"):
        done = _run("kernel", path)
        assert done.returncode == 65, done.stderr
        assert path in done.stderr


def test_debug_shows_the_traceback_and_keeps_the_code() -> None:
    done = _run("check", "--root", "/nowhere", "--debug")
    assert done.returncode == 69
    assert "Traceback" in done.stderr
    assert "Traceback" not in _run("check", "--root", "/nowhere").stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m ejectable schema kernel | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    assert done.returncode in (0, 128 + signal.SIGPIPE)


def test_output_that_cannot_be_written_is_said_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ejectable", "schema", "kernel"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_loses_the_words_and_not_the_exit_code(closed: str) -> None:
    for arguments, code in (("--version", 0), ("schema check", 0), ("kernel /nowhere", 69), ("nothing", 64)):
        line = f"'{sys.executable}' -m ejectable {arguments} {closed}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, (line, done.stderr)
        assert "Traceback" not in done.stderr


def test_what_is_typed_cannot_write_on_the_terminal() -> None:
    for arguments in (
        ("kernel", "/a\x1b[2Jb\u202e"),
        ("\x1b[31m",),
        ("kernel", "--\x1b[31m", "x"),
        ("explain", "\x1b[31m"),
    ):
        done = _run(*arguments)
        assert done.returncode in (64, 69)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\x1b" in done.stderr


def test_an_interruption_is_quiet_and_leaves_with_130(tmp_path: Path) -> None:
    code = (
        "import sys, time, ejectable.host as h; h.Root = lambda *_: time.sleep(30); "
        "from ejectable.cli.app import run; print('ready', flush=True); sys.exit(run(['check']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert not errors


def test_the_installed_program_is_the_same() -> None:
    done = subprocess.run([EJECTABLE, "schema", "check"], capture_output=True, text=True, check=True)
    assert done.stdout == _run("schema", "check").stdout
