# SPDX-License-Identifier: GPL-2.0-or-later
"""What `--apply` changes is all there or not at all, is on record, and can be taken back."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import BadInput, Missing
from ejectable.remedies import changes as module
from ejectable.remedies.changes import Changes, interrupted
from ejectable.remedies.records import Records
from ejectable.remedies.state import folder_of
from tests.remedies.own_state import IN_A_CHILD


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "machine"
    (root / "etc").mkdir(parents=True)
    (root / "var/lib").mkdir(parents=True)
    (root / "etc/old.conf").write_bytes(b"old = 1\n")
    (root / "etc/old.conf").chmod(0o640)
    return root


@contextmanager
def changing(tree: Path, remedy: str = "test") -> Iterator[Changes]:
    with Changes.begin(host.Root(tree), remedy, undo=f"ejectable fix {remedy} --undo") as changes:
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
with Changes.begin(host.Root(sys.argv[1]), "test", undo="none") as changes:
    changes.write("/etc/new/a.conf", b"a\\n")
    changes.write("/etc/old.conf", b"b\\n")
    flag = sys.argv[1] + "/etc/touched"
    changes.run(["touch", flag], undo=["rm", flag], what="t", timeout_s=9)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_killed_between_steps_is_taken_back_by_the_next_run(tree: Path) -> None:
    before, folders_before = everything(tree), folders(tree)
    done = subprocess.run([sys.executable, "-c", IN_A_CHILD + KILLED, str(tree)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert everything(tree) != before
    assert [record.remedy for record in interrupted(host.Root(tree))] == ["test"]
    with changing(tree, "another") as changes:
        assert (everything(tree), folders(tree)) == (before, folders_before)
    assert "Undone: t." in changes.done
    assert interrupted(host.Root(tree)) == ()


def test_what_somebody_else_changed_since_is_left_alone_and_told(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/old.conf", b"ours\n")
    (tree / "etc/old.conf").write_bytes(b"theirs\n")
    with changing(tree) as undoing:
        assert undoing.undo("test") == ["/etc/old.conf was changed by somebody else since: it was left as it is."]
    assert undoing.left == ["/etc/old.conf was changed by somebody else since: it was left as it is."]
    assert (tree / "etc/old.conf").read_bytes() == b"theirs\n"


def test_what_could_not_be_undone_is_told_and_stays_on_record_for_another_try(tree: Path) -> None:
    flag = tree / "etc/flag"
    undo = ["sh", "-c", f"test -e {flag} || {{ echo not yet >&2; exit 1; }}"]
    with changing(tree) as changes:
        changes.run(["true"], undo=undo, what="it is on", timeout_s=9)
    with changing(tree) as undoing:
        (said,) = undoing.undo("test")
    assert said.endswith("failed: not yet")
    assert undoing.left == [said]
    flag.touch()
    with changing(tree) as undoing:
        assert undoing.undo("test") == ["Undone: it is on."]
    assert undoing.left == []


def test_one_change_at_a_time(tree: Path) -> None:
    with changing(tree) as changes:
        changes.write("/etc/a", b"1")
        with pytest.raises(Missing, match="is under way"), changing(tree, "other"):
            pass
    assert [record.remedy for record in Records(host.Root(tree)).all()] == ["test"]


def test_a_full_disk_changes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(tree)

    def full(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        del path, data, mode
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(Missing, match="No space left"), changing(tree) as changes:
        changes.write("/etc/new/a.conf", b"a\n")
    assert everything(tree) == before
    assert "etc/new" not in folders(tree)


def test_a_command_that_fails_is_undone_and_its_last_words_are_told(tree: Path) -> None:
    flag = tree / "etc/flag"
    with pytest.raises(Missing, match="no luck"), changing(tree) as changes:
        changes.run(
            ["sh", "-c", f"touch {flag}; echo no luck >&2; exit 1"],
            undo=["rm", "-f", str(flag)],
            what="the flag is set",
            timeout_s=9,
        )
    assert not flag.exists()


def test_a_command_that_never_ends_is_ended(tree: Path) -> None:
    with pytest.raises(Missing, match="did not end within 1 s"), changing(tree) as changes:
        changes.run(["sleep", "60"], undo=(), what="sleeping", timeout_s=0.6)


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
