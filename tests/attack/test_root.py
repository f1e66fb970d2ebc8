# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile trees: a sample of `make attack-root`, and that what watches it sees what it is there for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack import confined
from tests.attack.confined import watched
from tests.attack.hostile import build
from tests.attack.root import ALLOWED, commands
from tests.attack.trace import STRACE, faults_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices, and a machine read-only")
NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.mark.parametrize("number", [0, 4, 6, 10])
def test_a_hostile_tree_changes_nothing_and_starts_nothing(tmp_path: Path, number: int) -> None:
    tree = build(tmp_path / "tree", 1000 + number)
    assert watched(commands(tree)[number], writable=[tree], allowed=ALLOWED).faults == ()


@NEEDS_STRACE
def test_strace_sees_nothing_of_a_check_but_its_own_folders(tmp_path: Path) -> None:
    tree = build(tmp_path / "tree", 2000)
    assert watched(["check", "--root", str(tree)], writable=[tree], allowed=ALLOWED, how="strace").faults == ()


def test_on_a_terminal_nothing_but_our_own_painting_comes_out(tmp_path: Path) -> None:
    tree = build(tmp_path / "tree", 3000)
    (tree / "proc").mkdir(exist_ok=True)
    outcome = watched(["check", "--root", str(tree)], writable=[tree], allowed=ALLOWED, how="terminal")
    assert outcome.faults == ()
    assert outcome.said


def test_the_watcher_sees_control_characters_hangs_and_what_it_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json, os, sys, subprocess, time\n"
        "log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "print('\\x1b]0;owned\\x07')\n"
        "try: os.mkdir('/usr/owned')\n"
        "except OSError as error: print(error.errno)\n"
        "os.write(log, json.dumps(['memory', str(2 << 30)]).encode() + b'\\n')\n"
        "os.write(log, json.dumps(['process', '/bin/evil']).encode() + b'\\n')\n"
    )
    monkeypatch.setattr(confined, "HOOK", program)
    outcome = watched([], writable=[tmp_path])
    said = " ".join(outcome.faults)
    assert "reached the terminal" in said
    assert "2048 MiB" in said
    assert "/bin/evil" in said
    assert f"{30}" in outcome.said, "EROFS: the machine is read-only"
    assert not Path("/usr/owned").exists()


@NEEDS_STRACE
def test_the_trace_names_what_was_written_changed_and_started(tmp_path: Path) -> None:
    mine, theirs, log = tmp_path / "mine", tmp_path / "theirs", tmp_path / "log"
    mine.mkdir()
    theirs.mkdir()
    program = (
        f"import os, subprocess; open({str(mine / 'a')!r}, 'w'); os.mkdir({str(theirs / 'b')!r});"
        f"os.chdir({str(theirs)!r}); here = os.open('.', os.O_RDONLY);"
        "os.close(os.open('c', os.O_WRONLY | os.O_CREAT, dir_fd=here));"
        "os.rename('c', 'd', src_dir_fd=here, dst_dir_fd=here);"
        "file = open('d'); os.fchmod(file.fileno(), 0o600); subprocess.run(['true'])"
    )
    subprocess.run([*STRACE, "-o", log, "--", sys.executable, "-S", "-c", program], check=True)
    said = " ".join(faults_of(log, (str(mine),), frozenset()))
    assert f"mkdir of {theirs}/b" in said
    assert f"opened {theirs}/c for writing" in said
    assert f"of {theirs}/d" in said
    assert f"fchmod of {theirs}/d" in said
    assert "started true" in said
    assert str(mine) not in said
    assert "started true" not in " ".join(faults_of(log, (str(mine),), frozenset({"true"})))
