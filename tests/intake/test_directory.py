# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done in a folder is done in that folder and to that file, whoever renames and links beside it."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ejectable.errors import BadInput, DamagedInput, Denied
from ejectable.intake import Directory, write_atomically
from ejectable.intake.directory import LEFTOVER

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Directory]:
    with Directory.open(tmp_path) as directory:
        yield directory


@AS_ROOT
@pytest.mark.parametrize("put", [os.symlink, os.link])
def test_a_file_put_in_place_of_the_one_being_written_is_not_given_away(
    monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, Path], None]
) -> None:
    """The owner of a folder swaps the file that root writes there for a link to one that only root may read."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        theirs = top / "theirs"
        theirs.mkdir()
        (theirs / "settings").write_text("old")
        for path in (theirs, theirs / "settings"):
            os.chown(path, NOBODY, NOBODY)
        secret = top / "shadow"
        secret.write_text("secret")
        secret.chmod(0o600)

        def swap(_descriptor: int) -> None:
            monkeypatch.undo()
            (aside,) = [path for path in theirs.iterdir() if path.name != "settings"]
            aside.unlink()
            put(secret, aside)

        monkeypatch.setattr(os, "fsync", swap)
        with pytest.raises(Denied, match="somebody else"):
            write_atomically(theirs / "settings", b"new", mode=0o644)
        about = secret.stat()
        assert (about.st_uid, about.st_mode & 0o777, secret.read_text()) == (0, 0o600, "secret")


@AS_ROOT
def test_a_file_stays_with_whom_it_belongs_to(tmp_path: Path, folder: Directory) -> None:
    (tmp_path / "theirs").write_text("old")
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    folder.write("theirs", b"new", mode=0o4755)
    about = (tmp_path / "theirs").stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (NOBODY, NOBODY, 0o755)


def test_a_folder_put_in_place_of_an_open_one_gets_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "trap").mkdir()
    with Directory.open(tmp_path / "a") as directory:
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").symlink_to("trap")
        directory.write("file", b"x")
        directory.append("log", b"x")
    assert not list((tmp_path / "trap").iterdir())
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["file", "log"]


def test_writing_over_a_link_replaces_the_link(tmp_path: Path, folder: Directory) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "link").symlink_to("victim")
    folder.write("link", b"new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b"])
def test_a_name_is_one_component(folder: Directory, name: str) -> None:
    for act in (
        lambda: folder.write(name, b""),
        lambda: folder.append(name, b""),
        lambda: folder.set(name, b""),
        lambda: folder.remove(name),
        lambda: folder.read(name, 1),
        lambda: folder.enter(name, make=True),
        lambda: folder.rename(name, "x"),
        lambda: folder.rename("x", name),
        lambda: folder.remove_folder(name, filled=True),
    ):
        with pytest.raises(BadInput, match="name of a file"):
            act()


def test_what_has_a_second_name_is_neither_appended_to_nor_set(tmp_path: Path, folder: Directory) -> None:
    (tmp_path / "victim").write_text("kept")
    os.link(tmp_path / "victim", tmp_path / "log")
    for act in (folder.append, folder.set):
        with pytest.raises(BadInput, match="hard links"):
            act("log", b"x")
    with pytest.raises(BadInput, match="hard links"), folder.lock("log"):
        pass
    assert (tmp_path / "victim").read_text() == "kept"


def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path: Path, folder: Directory) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    for name, what in (("fifo", "a FIFO"), ("folder", "a directory"), ("link", "a symbolic link")):
        for act in (lambda n: folder.read(n, 9), lambda n: folder.append(n, b"x"), lambda n: folder.set(n, b"x")):
            with pytest.raises(BadInput, match=f"found {what}"):
                act(name)
    assert (tmp_path / "file").read_bytes() == b""


@AS_ROOT
def test_a_device_is_not_even_opened(tmp_path: Path, folder: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening alone may start a watchdog."""
    try:
        os.mknod(tmp_path / "watchdog", 0o020600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device nodes in this container")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("it was opened"))
    for act in (lambda: folder.read("watchdog", 9), lambda: folder.append("watchdog", b"x")):
        with pytest.raises(BadInput, match="character device"):
            act()


def test_a_failed_write_leaves_nothing_aside(
    tmp_path: Path, folder: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        folder.write("file", b"x")
    assert not list(tmp_path.iterdir())


def test_what_killed_writes_left_is_swept_and_nothing_else(tmp_path: Path, folder: Directory) -> None:
    names = [f".ejectable-{'0' * 16}", f".ejectable-{'1' * 16}", f".ejectable-{'2' * 17}", ".ejectable-", "other"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    os.utime(tmp_path / names[1])
    (tmp_path / f".ejectable-{'3' * 16}").symlink_to("other")
    assert [bool(LEFTOVER.fullmatch(name)) for name in names] == [True, True, False, False, False]
    assert folder.sweep_leftovers() == 1
    assert not (tmp_path / names[0]).exists()
    assert len(list(tmp_path.iterdir())) == 5


def test_a_write_that_is_killed_leaves_what_is_swept(tmp_path: Path, folder: Directory) -> None:
    child = os.fork()
    if not child:
        os.fsync = lambda _: os._exit(9)  # type: ignore[assignment]
        folder.write("file", b"x")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list(tmp_path.iterdir())) == 1
    assert folder.sweep_leftovers(older_than_s=-1) == 1
    assert not list(tmp_path.iterdir())


def test_sweeping_keeps_the_youngest_and_all_of_other_names(tmp_path: Path, folder: Directory) -> None:
    for number in range(5):
        (tmp_path / f"{number}.json").touch()
        os.utime(tmp_path / f"{number}.json", (number, number))
    (tmp_path / "other.json").touch()
    os.utime(tmp_path / "other.json", (0, 0))
    assert folder.sweep(re.compile(r"\d\.json"), keep=2) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.json", "4.json", "other.json"]


def test_reading_and_listing_are_bounded(tmp_path: Path, folder: Directory) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").touch()
    assert folder.read("a", 5) == b"12345"
    with pytest.raises(DamagedInput, match="limit of 4"):
        folder.read("a", 4)
    assert folder.list() == ["a", "b"]
    with pytest.raises(DamagedInput, match="more than 1 files"):
        folder.list(1)


def test_a_lock_is_held_by_one(folder: Directory) -> None:
    with folder.lock("lock"), pytest.raises(BlockingIOError), folder.lock("lock"):
        pass
    with folder.lock("lock"):
        pass


def test_removing_a_filled_folder_follows_no_link(tmp_path: Path, folder: Directory) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "gone/inner").mkdir(parents=True)
    (tmp_path / "gone/inner/link").symlink_to(tmp_path / "kept")
    folder.remove_folder("gone", filled=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_ours_is_made_for_us_alone_and_entered_through_no_link(tmp_path: Path) -> None:
    with Directory.ours(tmp_path, "a", "b", make=True) as made:
        assert os.fstat(made.descriptor).st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OSError, match="irectory"):
        Directory.ours(tmp_path, "link", "b")
    (tmp_path / "a").chmod(0o770)
    with pytest.raises(Denied, match="another user"):
        Directory.ours(tmp_path, "a", "b")


@AS_ROOT
def test_ours_is_not_another_users(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", NOBODY, NOBODY)
    with pytest.raises(Denied, match="another user"):
        Directory.ours(tmp_path, "a", "b", make=True)
    assert not list((tmp_path / "a").iterdir())
