# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs are run by absolute path, as root only those of root's, and with an environment of our own."""

import os
import time
from pathlib import Path

import pytest

from ejectable.errors import Missing
from ejectable.remedies import commands
from ejectable.remedies.commands import environment, run, run_checked, which

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what others could make root do is shown as root")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that comes first in PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def program(path: Path, text: str = "echo here\n") -> Path:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path


def test_a_program_that_fails_is_told_by_its_last_words(folder: Path) -> None:
    program(folder / "unlucky", "echo so far so good\necho no luck >&2\nexit 1\n")
    with pytest.raises(Missing, match=r"`unlucky --very` failed: no luck"):
        run_checked(["unlucky", "--very"], timeout_s=9)


def test_a_program_that_never_ends_is_ended_with_its_children(folder: Path, tmp_path: Path) -> None:
    program(folder / "endless", f"(sleep 2; touch {tmp_path}/late) &\nsleep 60\n")
    with pytest.raises(Missing, match=r"did not end within 0 s\.$"):
        run(["endless"], timeout_s=0.3)
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


def test_a_package_manager_that_takes_long_is_left_at_work(folder: Path, tmp_path: Path) -> None:
    program(folder / "manager", f"sleep 0.6; touch {tmp_path}/done\n")
    with pytest.raises(Missing, match="It is still at work"):
        run(["manager"], timeout_s=0.2, unbroken=True)
    commands._at_work.pop().wait(10)
    assert (tmp_path / "done").exists()


@as_root
@pytest.mark.parametrize("what", ["owner of the folder", "mode of the folder", "owner", "mode", "leads to another's"])
def test_as_root_a_program_that_others_may_replace_is_not_run(folder: Path, tmp_path: Path, what: str) -> None:
    flag = tmp_path / "flag"
    text = f"touch {flag}\n"
    place = program(folder / "uname", text)
    if what == "leads to another's":
        os.chown(program(tmp_path / "theirs", text), 65534, 65534)
        place.unlink()
        place.symlink_to(tmp_path / "theirs")
    elif what.startswith("owner"):
        os.chown(folder if "folder" in what else place, 65534, 65534)
    else:
        (folder if "folder" in what else place).chmod(0o777)
    assert which("uname") == "/usr/bin/uname"
    assert run(["uname"], timeout_s=9).out.strip() == "Linux"
    assert not flag.exists()
    program(folder / "only-here", text)
    if "folder" in what:
        with pytest.raises(Missing, match=r"was not found where only root may write: .*bin"):
            run(["only-here"], timeout_s=9)


def test_what_is_beside_us_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "uname", "echo ours\n")
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", ":", "bin:."):
        monkeypatch.setenv("PATH", path)
        assert which("uname") == "/usr/bin/uname"


@as_root
def test_of_the_environment_only_what_is_listed_reaches_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "GIT_DIR", "APT_CONFIG", "PYTHONPATH", "MAKEFLAGS", "CPATH", "ENV", "TMPDIR", "SECRET"):
        monkeypatch.setenv(name, "/tmp/theirs")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    seen = dict(line.partition("=")[::2] for line in run(["env"], timeout_s=9).out.splitlines())
    assert seen.pop("https_proxy") == "http://proxy.example:3128"
    assert (seen["HOME"], seen["LC_ALL"]) == ("/root", "C.UTF-8")
    assert not [value for value in seen.values() if "theirs" in value]
    ours = {"PATH", "HOME", "LANG", "LC_ALL", "LANGUAGE", "TERM", "PAGER", "SYSTEMD_COLORS"}
    assert set(environment()) - ours <= {"DEBIAN_FRONTEND", "NEEDRESTART_SUSPEND"} | {
        name for name in environment() if name.lower().endswith("_proxy")
    }
