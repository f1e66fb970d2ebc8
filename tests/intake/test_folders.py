# SPDX-License-Identifier: GPL-2.0-or-later
"""This user's own folders are this user's alone, and a run that is killed leaves nothing for ever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ejectable.errors import Denied
from ejectable.intake import cache_folder, open_cache, private_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_a_private_folder_is_ours_alone_and_goes_with_the_run(temporary: Path) -> None:
    with private_folder("build") as folder:
        assert Path(folder.name).parent == temporary
        assert Path(folder.name).stat().st_mode & 0o777 == 0o700
        folder.write("file", b"x")
        assert (Path(folder.name) / "file").read_bytes() == b"x"
    assert not list(temporary.iterdir())


def test_what_a_killed_run_left_goes_with_the_next_and_what_is_in_use_or_another_thing_stays(temporary: Path) -> None:
    program = (
        "import os\nfrom ejectable.intake import private_folder\n"
        f"with private_folder('build') as folder:\n    os.kill(os.getpid(), {signal.SIGKILL:d})\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = temporary.iterdir()
    kept = temporary / f"ejectable-build-{'0' * 16}"  # nobody's lock is in it: it is not ours to remove
    kept.mkdir()
    linked = temporary / f"ejectable-build-{'1' * 16}"
    linked.symlink_to(kept)
    with private_folder("other"):
        assert left.exists()
    with private_folder("build") as one, private_folder("build") as other:
        assert not left.exists()
        assert Path(one.name).exists()
        assert Path(other.name).exists()
    assert sorted(temporary.iterdir()) == [kept, linked]


def test_the_cache_is_where_the_specification_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "cache"))
    with pytest.raises(FileNotFoundError):
        open_cache("verdicts")
    with open_cache("verdicts", make=True) as folder:
        assert folder.name == str(tmp_path / "new/cache/ejectable/verdicts")
    assert (tmp_path / "new/cache/ejectable").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_keeps_nothing_in_another_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `sudo -E`, which keeps HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(Denied, match="another user"):
        open_cache("verdicts", make=True)
    assert not list(tmp_path.iterdir())
