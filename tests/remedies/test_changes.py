# SPDX-License-Identifier: GPL-2.0-or-later
"""What `--apply` changes is all there or not at all, is on record, and can be taken back."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import BadInput, Missing, OurFault
from ejectable.intake import Directory
from ejectable.remedies import REMEDIES
from ejectable.remedies.changes import Changes, interrupted
from ejectable.remedies.records import Records
from ejectable.remedies.state import folder_of
from ejectable.remedies.steps import ReloadUnits, StartUnits
from tests.remedies.own_state import IN_A_CHILD
from tests.remedies.toy import NAMES, TOYS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    (root / "etc").mkdir(parents=True)
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/panic").write_text("0\n")
    (root / "proc/self").symlink_to(str(os.getpid()))
    (root / "etc/old.conf").write_bytes(b"old = 1\n")
    (root / "etc/old.conf").chmod(0o640)
    return root


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(REMEDIES, name, "tests.remedies.toy:Toy")


@pytest.fixture
def systemctl(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a systemctl of ours writes what it was asked for."""
    folder = tree.parent / "bin"
    folder.mkdir()
    log = tree.parent / "log"
    (folder / "systemctl").write_text(
        f"#!/bin/sh\necho $* >>{log}\n[ -e {folder}/refuse ] && {{ echo not yet >&2; exit 1; }}\nexit 0\n"
    )
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def running(tree: Path) -> host.Root:
    """The tree, as if it were the machine that this runs on."""
    root = host.Root(tree)
    root.live = True
    return root


@contextmanager
def changing(tree: Path | host.Root, remedy: str = "test") -> Iterator[Changes]:
    root = host.Root(tree) if isinstance(tree, Path) else tree
    with Changes.begin(root, remedy, undo=f"ejectable fix {remedy} --undo") as changes:
        yield changes


def everything(tree: Path) -> dict[str, bytes]:
    """All files but our own records."""
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and "var/lib/ejectable" not in str(path)
    }


def folders(tree: Path) -> set[str]:
    return {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_dir() and "var/lib/ejectable" not in str(p)}


def test_what_is_done_is_told_kept_and_undone(tree: Path) -> None:
    before, folders_before = everything(tree), folders(tree)
    with changing(tree) as changes:
        changes.write("/etc/sysctl.d/deep/90-new.conf", b"new = 1\n")
        changes.write("/etc/old.conf", b"old = 2\n")
    assert changes.done == ["Wrote /etc/sysctl.d/deep/90-new.conf.", "Changed /etc/old.conf."]
    assert (tree / "etc/old.conf").read_bytes() == b"old = 2\n"
    assert (tree / "etc/old.conf").stat().st_mode & 0o777 == 0o640, "the mode of a file that is there is kept"
    assert [record.state for record in Records(host.Root(tree)).all()] == ["done"]
    with changing(tree) as undoing:
        said = undoing.undo("test")
    assert said == ["/etc/old.conf is as it was before.", "/etc/sysctl.d/deep/90-new.conf is as it was before."]
    assert (everything(tree), folders(tree)) == (before, folders_before)
    assert (tree / "etc/old.conf").stat().st_mode & 0o777 == 0o640
    with changing(tree) as undoing:
        assert undoing.undo("test") == [], "nothing is undone twice"


def test_an_error_half_way_undoes_what_was_done_and_says_so(tree: Path) -> None:
    before, folders_before = everything(tree), folders(tree)

    def half_way() -> None:
        with changing(tree) as changes:
            changes.write("/etc/new/a.conf", b"a\n")
            changes.remove("/etc/old.conf")
            raise Missing("The download was cut off.", hint="Try again.")

    with pytest.raises(Missing) as caught:
        half_way()
    assert caught.value.message == "The download was cut off."
    assert caught.value.hint is not None
    assert "Try again. What was done was undone: /etc/old.conf is as it was before." in caught.value.hint
    assert (everything(tree), folders(tree)) == (before, folders_before)


def test_ctrl_c_half_way_undoes_what_was_done(tree: Path) -> None:
    before = everything(tree)

    def interrupted_change() -> None:
        with changing(tree) as changes:
            changes.write("/etc/old.conf", b"other\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_change()
    assert everything(tree) == before


KILLED = """
import os, signal, sys
from ejectable import host
from ejectable.remedies.changes import Changes
from ejectable.remedies.steps import StartUnits
root = host.Root(sys.argv[1])
root.live = True
with Changes.begin(root, "test", undo="none") as changes:
    changes.write("/etc/new/a.conf", b"a\\n")
    changes.write("/etc/old.conf", b"b\\n")
    with changes.step(StartUnits()):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_killed_between_steps_is_taken_back_by_the_next_run(tree: Path, systemctl: Path) -> None:
    before, folders_before = everything(tree), folders(tree)
    done = subprocess.run([sys.executable, "-c", IN_A_CHILD + TOYS + KILLED, str(tree)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert everything(tree) != before
    assert [record.remedy for record in interrupted(running(tree))] == ["test"]
    with changing(running(tree), "another") as changes:
        assert (everything(tree), folders(tree)) == (before, folders_before)
    assert any(sentence.startswith("Undone: started ejectable-live") for sentence in changes.done)
    assert systemctl.read_text().startswith("stop ejectable-live.service")
    assert interrupted(running(tree)) == ()


def test_what_somebody_else_changed_since_is_left_alone_and_told(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/old.conf", b"ours\n")
    (tree / "etc/old.conf").write_bytes(b"theirs\n")
    with changing(tree) as undoing:
        assert undoing.undo("test") == ["/etc/old.conf was changed by somebody else since: it was left as it is."]
    assert undoing.left == ["/etc/old.conf was changed by somebody else since: it was left as it is."]
    assert (tree / "etc/old.conf").read_bytes() == b"theirs\n"


def test_what_could_not_be_undone_is_told_and_stays_on_record_for_another_try(tree: Path, systemctl: Path) -> None:
    with changing(running(tree)) as changes, changes.step(StartUnits()):
        pass
    refusing = tree.parent / "bin/refuse"
    refusing.touch()
    with changing(running(tree)) as undoing:
        (said,) = undoing.undo("test")
    assert said.startswith("Not undone: started ejectable-live.service")
    assert said.endswith("failed: not yet")
    assert undoing.left == [said]
    refusing.unlink()
    with changing(running(tree)) as undoing:
        (said,) = undoing.undo("test")
    assert said.startswith("Undone: started ejectable-live.service")
    assert undoing.left == []
    assert len(systemctl.read_text().splitlines()) == 2


def test_one_change_at_a_time(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/a", b"1")
        with pytest.raises(Missing, match="is under way"), changing(tree, "other"):
            pass
    assert [record.remedy for record in Records(host.Root(tree)).all()] == ["test"]


def test_a_full_disk_changes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(tree)

    real = Directory.write

    def full(self: Directory, name: str, data: bytes, mode: int = 0o644) -> None:
        if name == "a.conf":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, name, data, mode=mode)

    monkeypatch.setattr(Directory, "write", full)
    with pytest.raises(Missing, match="No space left"), changing(tree) as changes:
        changes.write("/etc/new/a.conf", b"a\n")
    assert everything(tree) == before
    assert "etc/new" not in folders(tree)


def test_a_step_that_fails_half_way_is_undone(tree: Path, systemctl: Path) -> None:
    def half_way() -> None:
        with changing(running(tree)) as changes, changes.step(StartUnits()):
            raise Missing("no luck")

    with pytest.raises(Missing, match="no luck") as caught:
        half_way()
    assert "Undone: started ejectable-live" in str(caught.value.hint)
    assert systemctl.read_text().startswith("stop")


def test_nothing_is_run_for_a_tree(tree: Path, systemctl: Path) -> None:
    with pytest.raises(OurFault, match="not a step of this remedy"), changing(tree) as changes:
        changes.step(StartUnits()).__enter__()
    with pytest.raises(OurFault, match="not a step of this remedy"), changing(tree) as changes:
        changes.set("/proc/sys/kernel/panic", "10")
    assert (tree / "proc/sys/kernel/panic").read_text() == "0\n"
    assert not systemctl.exists()


def test_a_remedy_changes_what_it_has_declared_and_nothing_else(tree: Path) -> None:
    for path in ("/usr/lib/x", "/root/.ssh/authorized_keys"):
        with pytest.raises(OurFault, match="not a step of this remedy"), changing(tree) as changes:
            changes.write(path, b"x")
    with pytest.raises(OurFault), changing(running(tree)) as changes, changes.step(ReloadUnits()):
        pass
    (tree / "proc/sys/kernel/core_pattern").write_text("core\n")
    with pytest.raises(OurFault), changing(running(tree)) as changes:
        changes.set("/proc/sys/kernel/core_pattern", "|/bin/sh")
    assert not (tree / "usr").exists()


def test_a_value_of_the_kernel_is_set_and_set_back(tree: Path) -> None:
    with changing(running(tree)) as changes:
        changes.set("/proc/sys/kernel/panic", "10")
    assert (tree / "proc/sys/kernel/panic").read_text() == "10\n"
    with changing(running(tree)) as undoing:
        assert undoing.undo("test") == ["/proc/sys/kernel/panic is as it was before."]
    assert (tree / "proc/sys/kernel/panic").read_text() == "0\n"


def test_links_of_a_captured_tree_lead_nowhere_else(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    (tree / "etc/trap.d").symlink_to(outside)
    (tree / "etc/trap.conf").symlink_to(outside / "victim")
    for path in ("/etc/trap.d/new.conf", "/etc/trap.d/deep/new.conf", "/etc/trap.conf"):
        # As after chroot(2), the link's target is looked for below the tree, where it is not.
        with pytest.raises(BadInput, match="link to nothing"), changing(tree) as changes:
            changes.write(path, b"x")
    (tree / str(outside).lstrip("/")).mkdir(parents=True)
    with changing(tree) as changes:
        changes.write("/etc/trap.d/new.conf", b"x")
    assert (tree / str(outside).lstrip("/") / "new.conf").read_bytes() == b"x"
    assert list(outside.iterdir()) == [outside / "victim"]
    assert (outside / "victim").read_text() == "untouched"


def test_a_file_that_is_no_procfs_is_not_set(tree: Path) -> None:
    (tree / "proc/self").unlink()
    with pytest.raises(Missing, match="no value of the running kernel"), changing(running(tree)) as changes:
        changes.set("/proc/sys/kernel/panic", "10")
    assert (tree / "proc/sys/kernel/panic").read_text() == "0\n"


def test_each_change_leaves_an_audit_line(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/old.conf", b'evil "\x1b[31m\n')
    (line,) = (folder_of(host.Root(tree)) / "audit.log").read_text().splitlines()
    assert 'what="/etc/old.conf"' in line
    assert 'from="8 bytes: old = 1"' in line
    assert 'to="' in line
    assert 'undo="ejectable fix test --undo"' in line
    assert "\x1b" not in line


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": 1}', b"\xff" * 100])
def test_a_damaged_record_is_left_alone_and_hides_no_other(tree: Path, content: bytes) -> None:
    with changing(tree) as changes:
        changes.write("/etc/old.conf", b"x\n")
    changes_of_it = folder_of(host.Root(tree)) / "changes"
    damaged = changes_of_it / "000007.json"
    damaged.write_bytes(content)
    with changing(tree) as again:
        again.write("/etc/old.conf", b"y\n")
    assert damaged.read_bytes() == content
    assert [record.number for record in Records(host.Root(tree)).all()] == [1, 8]
    kept = json.loads((changes_of_it / "000008.json").read_bytes())
    assert kept["steps"][0]["path"] == "/etc/old.conf"


def killed_before(number: int, do: Callable[[], None]) -> bool:
    """Whether `do`, in a child, was killed: just before the file system is changed for the `number`th time."""
    child = os.fork()
    if child == 0:
        left = [number]
        for name in ("write", "remove", "remove_folder"):
            real = getattr(Directory, name)

            def counted(*words: object, real: Callable[..., object] = real, **options: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*words, **options)

            setattr(Directory, name, counted)
        do()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def several(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/new/deep/a.conf", b"a\n")
        changes.write("/etc/old.conf", b"b\n")
        changes.write("/etc/new/b.conf", b"b\n", mode=0o600)
        changes.remove("/etc/old.conf")


def taken_back(tree: Path) -> None:
    with changing(tree) as changes:
        changes.undo("test")


@pytest.mark.parametrize("number", range(11))
def test_killed_anywhere_a_change_is_there_whole_or_not_at_all(tree: Path, number: int) -> None:
    before, folders_before = everything(tree), folders(tree)
    killed = killed_before(number, lambda: several(tree))
    assert killed is (number < 9), "four steps, each recorded before it is made, and the record closed"
    with changing(tree, "another"):
        pass
    if killed:
        assert (everything(tree), folders(tree)) == (before, folders_before)
    taken_back(tree)
    assert (everything(tree), folders(tree)) == (before, folders_before)
    assert (tree / "etc/old.conf").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", range(9))
def test_killed_anywhere_an_undoing_is_finished_by_the_next_one(tree: Path, number: int) -> None:
    before, folders_before = everything(tree), folders(tree)
    several(tree)
    killed_before(number, lambda: taken_back(tree))
    taken_back(tree)
    assert (everything(tree), folders(tree)) == (before, folders_before)
    assert (tree / "etc/old.conf").stat().st_mode & 0o777 == 0o640
