# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable fix source-patch TREE`: shows the patch, makes it, takes it back; leaves alone what it does not know."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from corpus.patches import VARIANTS, apply
from corpus.trees import source as kernel_source
from ejectable import host
from ejectable.errors import BadInput, EjectableError, Missing, WrongUsage
from ejectable.model import Remedy, Status
from ejectable.remedies import Request, Situation, execute
from ejectable.remedies.source_patch import SourcePatch
from ejectable.report import document
from tests.one import the_first
from tests.remedies.own_state import IN_A_CHILD

pytestmark = pytest.mark.kernels
Make = Callable[..., Path]
COMMON = "drivers/virtio/virtio_pci_common.c"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the part of a real kernel tree that is about virtio, with a variant of the fault."""

    def build(name: str = "affected", family: str = "6.1", *, at: str = "linux") -> Path:
        top = tmp_path / at
        (top / "drivers/virtio").mkdir(parents=True)
        for file in (kernel_source(family) / "drivers/virtio").iterdir():
            shutil.copy(file, top / "drivers/virtio")
        shutil.copy(kernel_source(family) / "Makefile", top)
        apply(top / "drivers/virtio", family, name)
        return top

    return build


def situation() -> Situation:
    return Situation(host.Root(), the_first(), cache=False, offline=True)


def planned(top: Path) -> Remedy:
    (line,) = execute.plan(situation(), Request(target=str(top)), ["source-patch"])
    return line


def test_the_patch_is_shown_made_verified_and_taken_back(make: Make, own_state: Path) -> None:
    top = make(at="my linux")
    before = (top / COMMON).read_bytes()
    line = planned(top)
    assert (line.state, line.verified) == ("possible", True)
    assert line.commands == (f"ejectable fix source-patch '{top}' --apply",)
    assert f"--- a/{COMMON}" in line.diff
    assert "+\t\tif (vp_dev->is_avq && vp_dev->is_avq(vdev, vq->index))" in line.diff
    assert (top / COMMON).read_bytes() == before, "planning changes nothing"
    assert not own_state.exists()

    done = execute.apply(situation(), "source-patch", Request(target=str(top)))
    assert done.verified
    assert done.diff == line.diff
    assert done.undo == f"ejectable fix source-patch '{top}' --undo"
    assert SourcePatch().status(situation(), Request(target=str(top))) is Status.FIXED
    assert (planned(top).state, planned(top).verified) == ("done", True)

    undone = execute.undo(situation(), "source-patch", Request(target=str(top)))
    assert undone.verified
    assert (top / COMMON).read_bytes() == before
    assert (own_state / "audit.log").read_text().count(str(top)) >= 2


def test_the_diff_is_one_that_patch_and_git_take(make: Make, tmp_path: Path) -> None:
    top = make()
    (tmp_path / "it.patch").write_text("\n".join(planned(top).diff) + "\n")
    subprocess.run(["git", "apply", "-p1", tmp_path / "it.patch"], cwd=top, check=True)
    assert planned(top).state == "done"


def test_of_two_trees_the_one_that_is_named_is_taken_back(make: Make) -> None:
    one, other = make(at="one"), make(at="other")
    for top in (one, other):
        execute.apply(situation(), "source-patch", Request(target=str(top)))
    execute.undo(situation(), "source-patch", Request(target=str(one)))
    assert planned(one).state == "possible"
    assert planned(other).state == "done"
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(situation(), "source-patch", Request(target=str(one)))


@pytest.mark.parametrize(
    ("family", "name", "words"),
    [
        ("6.1", "stock", "never had the callback"),
        ("6.12", "stock", "past the defect"),
        ("6.1", "fixed", "has the test already"),
        ("6.1", "fixed-is-legacy", "has the test already"),
        ("6.12", "fixed-legacy-probe", "has the test already"),
    ],
)
def test_a_tree_that_needs_nothing_is_told_apart_and_left_alone(make: Make, family: str, name: str, words: str) -> None:
    top = make(name, family)
    before = (top / COMMON).read_bytes()
    line = planned(top)
    assert (line.state, line.verified, line.diff) == ("done", True, ())
    assert words in line.why
    done = execute.apply(situation(), "source-patch", Request(target=str(top)))
    assert done.verified
    assert not done.changes
    assert done.undo is None
    assert (top / COMMON).read_bytes() == before
    assert SourcePatch().status(situation(), Request(target=str(top))) == VARIANTS[name].expected


def test_a_condition_that_is_not_understood_is_said_and_left_alone(make: Make) -> None:
    top = make()
    text = (top / COMMON).read_text()
    for loop in ("if (next(vq)->is_avq(vdev, vq->index))", "if (({ vp_dev->is_avq(vdev, vq->index); }))"):
        odd = text.replace("if (vp_dev->is_avq(vdev, vq->index))", loop)
        assert odd != text
        (top / COMMON).write_text(odd)
        line = planned(top)
        assert line.state == "impossible"
        assert not line.verified
        with pytest.raises(BadInput) as caught:
            execute.apply(situation(), "source-patch", Request(target=str(top)))
        assert caught.value.message
        assert (top / COMMON).read_text() == odd


def test_without_a_tree_it_says_what_it_needs() -> None:
    (line,) = execute.plan(situation(), Request(), ["source-patch"])
    assert line.state in ("impossible", "possible", "done")  # possible where this very kernel was built here
    assert "tree" in line.why
    with pytest.raises(WrongUsage, match="Which tree"):
        execute.apply(situation(), "source-patch", Request())


def refusal(target: Path, kind: type[EjectableError]) -> str:
    with pytest.raises(kind) as asked:
        execute.status(situation(), "source-patch", Request(target=str(target)))
    with pytest.raises(kind) as applied:
        execute.apply(situation(), "source-patch", Request(target=str(target)))
    assert asked.value.message == applied.value.message
    assert "\n" not in asked.value.message
    return asked.value.message


def test_what_is_no_tree_is_refused_in_one_sentence(make: Make, tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere", Missing)
    assert "no such folder" in refusal(tmp_path / "a\0b", Missing)
    (tmp_path / "file").write_text("x")
    assert "found a file" in refusal(tmp_path / "file", BadInput)
    (tmp_path / "empty").mkdir()
    assert f"found no {COMMON}" in refusal(tmp_path / "empty", BadInput)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "loop" in refusal(loop, Missing)
    top = make()
    assert "found no" in refusal(top / "drivers/virtio", BadInput)


def test_a_link_out_of_the_tree_is_neither_read_nor_written(make: Make, tmp_path: Path) -> None:
    top, outside = make(), tmp_path / "precious.c"
    shutil.move(top / COMMON, outside)
    (top / COMMON).symlink_to(outside)
    before = outside.read_bytes()
    assert "leads out of the tree" in refusal(top, BadInput)
    assert outside.read_bytes() == before
    (top / COMMON).unlink()
    shutil.move(top / "drivers/virtio", tmp_path / "elsewhere")
    (top / "drivers/virtio").symlink_to(tmp_path / "elsewhere")
    assert "leads out of the tree" in refusal(top, BadInput)


def test_a_link_within_the_tree_is_followed_and_kept(make: Make) -> None:
    top = make()
    shutil.move(top / COMMON, top / "the real one.c")
    (top / COMMON).symlink_to("../../the real one.c")
    execute.apply(situation(), "source-patch", Request(target=str(top)))
    assert (top / COMMON).is_symlink()
    assert "vp_dev->is_avq &&" in (top / "the real one.c").read_text()


def test_huge_binary_and_special_files_are_refused(make: Make) -> None:
    top = make()
    with (top / COMMON).open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    assert "larger than" in refusal(top, BadInput)
    (top / COMMON).write_bytes(b"\x7fELF\0\0")
    assert "binary" in refusal(top, BadInput)
    (top / COMMON).unlink()
    os.mkfifo(top / COMMON)
    assert "found no" in refusal(top, BadInput)


@pytest.fixture
def nobody(tmp_path: Path, own_state: Path) -> Iterator[None]:
    """Be somebody else, who may look into the test's folders."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    for path in (tmp_path, *tmp_path.parents):
        if "pytest" in str(path):
            path.chmod(0o755)
    for path in (own_state.parent, *own_state.parents):
        if "pytest" in str(path):
            path.chmod(0o755)
    os.chown(own_state.parent, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_tree_that_may_not_be_read_is_said_so(make: Make, request: pytest.FixtureRequest) -> None:
    top = make()
    (top / COMMON).chmod(0o600)
    request.getfixturevalue("nobody")
    assert "may not be read by this user" in refusal(top, Missing)
    os.seteuid(0)
    (top / "drivers").chmod(0o700)
    os.seteuid(65534)
    assert "may not be read by this user" in refusal(top, Missing)


def test_a_tree_that_may_not_be_written_stays_as_it_is(make: Make, request: pytest.FixtureRequest) -> None:
    top = make()
    before = (top / COMMON).read_bytes()
    request.getfixturevalue("nobody")
    assert planned(top).state == "possible", "looking takes no right to write"
    with pytest.raises(Missing, match="Permission denied"):
        execute.apply(situation(), "source-patch", Request(target=str(top)))
    assert (top / COMMON).read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_stays_its_owners_when_root_changes_it(make: Make) -> None:
    top = make()
    os.chown(top / COMMON, 1234, 4321)
    (top / COMMON).chmod(0o640)
    execute.apply(situation(), "source-patch", Request(target=str(top)))
    after = (top / COMMON).stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o777) == (1234, 4321, 0o640)


def test_killed_half_way_it_is_taken_back_by_the_next_run(make: Make, own_state: Path) -> None:
    top = make()
    before = (top / COMMON).read_bytes()
    code = IN_A_CHILD + (
        "import sys, time; from ejectable.remedies.source_tree import SourceTree as T; "
        "T.again = lambda self: (print('changed', flush=True), time.sleep(60)); "
        "from ejectable.cli.app import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fix", "source-patch", str(top), "--apply"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "changed\n"
    assert (top / COMMON).read_bytes() != before
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    undone = execute.undo(situation(), "source-patch", Request(target=str(top)))
    assert (top / COMMON).read_bytes() == before
    assert undone.changes
    assert list((own_state / "changes").glob("*.json"))


def test_ended_by_a_signal_half_way_it_takes_itself_back(make: Make) -> None:
    top = make()
    before = (top / COMMON).read_bytes()
    code = IN_A_CHILD + (
        "import sys, time; from ejectable.remedies.source_tree import SourceTree as T; "
        "T.again = lambda self: (print('changed', flush=True), time.sleep(60)); "
        "from ejectable.cli.app import run; sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "fix", "source-patch", str(top), "--apply"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert (top / COMMON).read_bytes() == before


def test_a_full_disk_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    top = make()
    before = (top / COMMON).read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ejectable.remedies.machine_files.write", full)
    with pytest.raises(Missing, match="No space left"):
        execute.apply(situation(), "source-patch", Request(target=str(top)))
    assert (top / COMMON).read_bytes() == before
    assert (
        sorted(path.name for path in (top / "drivers/virtio").iterdir() if path.name.startswith(".virtio_pci_c")) == []
    )


def test_a_mounted_image_does_not_change_where_the_tree_lies(make: Make, tmp_path: Path) -> None:
    top = make()
    (tmp_path / "image").mkdir()
    elsewhere = Situation(host.Root(tmp_path / "image"), the_first(), cache=False, offline=True)
    execute.apply(elsewhere, "source-patch", Request(target=str(top)))
    assert planned(top).state == "done"
    assert not any((tmp_path / "image").iterdir())


def test_on_the_command_line_the_document_and_the_code_are_the_trees(make: Make) -> None:
    top = make()
    for apply_it, code, status in (([], 2, "affected"), (["--apply"], 0, "fixed"), ([], 0, "fixed")):
        command = [sys.executable, "-m", "ejectable", "fix", "source-patch", str(top), *apply_it, "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        answer = json.loads(done.stdout)
        jsonschema.validate(answer, json.loads(document.schema("fix")))
        assert answer["status"] == status
        shown = answer["applied"] or answer["plan"][0]
        assert bool(shown["diff"]) == (status == "affected" or bool(apply_it))
