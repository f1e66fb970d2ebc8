# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab removes its own old folders, and nothing that is not its own."""

import os
import time
from pathlib import Path

import pytest

from ejectable.errors import Missing
from ejectable.lab.evidence import KEPT_S, Evidence, remove_old

NAME = "ejectable-lab-0123456789ab"


def aged(path: Path, seconds: float) -> Path:
    when = time.time() - seconds
    os.utime(path, (when, when), follow_symlinks=False)
    return path


def folder(place: Path, name: str, seconds: float) -> Path:
    (place / name / "001-case").mkdir(parents=True)
    (place / name / "001-case" / "console.log").write_text("said")
    return aged(place / name, seconds)


def test_only_its_own_folders_that_are_older_than_a_week_go(tmp_path: Path) -> None:
    old = folder(tmp_path, NAME, KEPT_S + 60)
    young = folder(tmp_path, "ejectable-lab-0123456789ac", KEPT_S - 60)
    named = folder(tmp_path, "ejectable-lab-mine", KEPT_S + 60)
    longer = folder(tmp_path, f"{NAME}0", KEPT_S + 60)
    assert remove_old(tmp_path) == 1
    assert [path.exists() for path in (old, young, named, longer)] == [False, True, True, True]


def test_a_link_or_a_file_of_that_name_leads_nowhere(tmp_path: Path) -> None:
    precious = folder(tmp_path / "elsewhere", "precious", KEPT_S + 60)
    (tmp_path / NAME).symlink_to(precious)
    aged(tmp_path / NAME, KEPT_S + 60)
    inside = folder(tmp_path, "ejectable-lab-0123456789ac", 0)
    (inside / "out").symlink_to(precious)
    aged(inside, KEPT_S + 60)
    aged_file = tmp_path / "ejectable-lab-0123456789ad"
    aged_file.write_text("")
    aged(aged_file, KEPT_S + 60)
    assert remove_old(tmp_path) == 1
    assert (precious / "001-case" / "console.log").read_text() == "said"
    assert (tmp_path / NAME).is_symlink()
    assert aged_file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's folder")
def test_another_users_folder_stays(tmp_path: Path) -> None:
    theirs = folder(tmp_path, NAME, 0)
    os.chown(theirs, 12345, 12345)
    aged(theirs, KEPT_S + 60)
    assert remove_old(tmp_path) == 0
    assert theirs.exists()


def test_a_new_folder_of_its_own_sweeps_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old = folder(tmp_path, NAME, KEPT_S + 60)
    own = Evidence.temporary()
    assert not old.exists()
    assert not own.folder.exists(), "it is made when there is something to keep"
    paths = own.keep("001-case", {"console.log": b"said"})
    assert Path(paths["console.log"]).read_bytes() == b"said"
    assert own.folder.stat().st_mode & 0o777 == 0o700
    own.discard()
    assert not own.folder.exists()


def test_a_folder_that_was_asked_for_stays_and_one_that_cannot_be_is_named(tmp_path: Path) -> None:
    named = Evidence.named(str(tmp_path / "kept"))
    named.keep("001-case", {"console.log": b"said"})
    named.discard()
    assert (tmp_path / "kept" / "001-case" / "console.log").exists()
    with pytest.raises(Missing, match="no folder can be made there"):
        Evidence.named("/proc/none")
