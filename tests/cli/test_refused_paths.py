# SPDX-License-Identifier: GPL-2.0-or-later
"""A path that the system refuses is named for what it is, and is no bug of ours: exit code 69 and a way out."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Root may read everything: these are what lets it, and without them it is refused what belongs to others.
RIGHTS = "-dac_override,-dac_read_search"
STRANGER = 12345
LONG = "n" * 300


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a closed one in it, of another user."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "closed/inner").mkdir(parents=True)
        (top / "closed/file").touch()
        (top / "loop").symlink_to("loop")
        (top / "tree/sys").mkdir(parents=True)
        for path in (top / "closed", top / "tree/sys"):
            if os.geteuid() == 0:
                os.chown(path, STRANGER, STRANGER)
            path.chmod(0o700 if os.geteuid() == 0 else 0)
        yield top
        (top / "closed").chmod(0o700)
        (top / "tree/sys").chmod(0o700)


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    drop: list[str] = []
    if os.geteuid() == 0:
        program = shutil.which("setpriv")
        if program is None:
            pytest.skip("setpriv, of util-linux, is not here")
        drop = [program, f"--inh-caps={RIGHTS}", f"--bounding-set={RIGHTS}"]
    return subprocess.run(
        [*drop, sys.executable, "-m", "ejectable", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "400"},
        timeout=120,
    )


FILES = [["kernel"], ["crash"], ["lab"]]
REFUSED = [
    ("closed/file", "may not (be )?read"),
    ("closed/inner", "may not (be )?read"),
    (LONG, "no such"),
    (f"tree/{LONG}/x", "no such"),
    ("loop", "no such"),
    ("nothing", "no such"),
]


# A root that may not be entered is entered when something in it is read: the test below.
@pytest.mark.parametrize(
    ("command", "path", "said"),
    [
        *((command, "closed", "may not (be )?read") for command in FILES),
        *((command, *case) for command in (*FILES, ["check", "--root"], ["fix", "--root"]) for case in REFUSED),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_missing(folder: Path, command: list[str], path: str, said: str) -> None:
    done = _run(folder, *command, path)
    assert done.returncode == 69, done.stdout + done.stderr
    assert re.search(said, done.stderr)
    assert "bug" not in done.stderr


@pytest.mark.parametrize("root", ["tree", "closed"])
def test_a_tree_that_may_not_be_read_is_called_so(folder: Path, root: str) -> None:
    done = _run(folder, "check", "--root", root)
    assert done.returncode == 3
    assert "/sys/bus may not be read by this user" in done.stdout
    assert "not captured" not in done.stdout
