# SPDX-License-Identifier: GPL-2.0-or-later
"""A root is a wall: nothing outside of it is read, whatever the links in it say; what was not seen is a doubt."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, DamagedInput, Denied, EjectableError, Missing
from ejectable.intake import Root, beneath
from ejectable.model import DoubtKind

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(params=["openat2", "by hand"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every claim holds where the kernel finds the way, and where it is found by hand."""
    if request.param == "by hand":
        monkeypatch.setattr(beneath, "_openat2", lambda: None)
    elif beneath._openat2() is None:
        pytest.skip("this system does not let us have openat2")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def _kinds(root: Root) -> list[tuple[DoubtKind, str]]:
    return [(doubt.kind, doubt.where) for doubt in root.doubts]


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _ask_all(root: Root, path: str) -> set[object]:
    """The answers to all that can be asked about a path."""
    with suppress(EjectableError):
        root.open(path).close()
    acts: tuple[Callable[[str], object], ...] = (root.read, root.list, root.link, root.stat, root.resolve, root.file)
    return {act(path) for act in acts}


# The wall


def test_an_absolute_link_leads_to_the_tree_not_to_the_host(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    assert Root(tmp_path).text("/etc/os-release") is None
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("NAME=inside\n")
    assert Root(tmp_path).text("/etc/os-release") == "NAME=inside"


def test_climbing_out_ends_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("../../../../../../../../../../etc")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("inside")
    root = Root(tmp_path)
    assert root.resolve("/a/hostname") == "/etc/hostname"
    assert root.resolve("/../../etc/hostname") == "/etc/hostname"
    assert root.text("a/hostname") == "inside"
    assert root.list("/a/../..") == ("a", "etc")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "..", ".", "/", "l", "m"]), max_size=8).map("/".join))
def test_no_path_leads_out_and_both_ways_agree(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.mktemp("out")
    tree = base / "tree"
    (tree / "a/b").mkdir(parents=True)
    (base / "secret").write_text("secret")
    (tree / "l").symlink_to("../../../a")
    (tree / "a/m").symlink_to(base)
    root = Root(tree)
    for tail in ("", "/secret", "/../secret"):
        assert root.read(path + tail) is None
        resolved = root.resolve(path + tail)  # always by hand
        assert resolved is None or (tree / resolved.lstrip("/")).resolve().is_relative_to(tree.resolve())
        there = root.stat(path + tail)
        assert (there is None) == (resolved is None)
        if there is not None and resolved is not None:
            assert os.path.samestat(there, (tree / resolved.lstrip("/")).stat())


def test_nothing_outside_is_read_while_somebody_renames(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_text("inside")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_text("outside")
    (tree / "trap").symlink_to("../../../../../../../.." + str(tmp_path))
    over = threading.Event()

    def rename() -> None:
        while not over.is_set():
            (tree / "a").rename(tree / "c")
            (tree / "trap").rename(tree / "a")
            (tree / "a").rename(tree / "trap")
            (tree / "c").rename(tree / "a")

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        root = Root(tree)
        found = {root.text("/a/b/file") for _ in range(2000)} | {root.text("a/../a/b/file") for _ in range(500)}
    finally:
        over.set()
        thread.join()
    assert found <= {"inside", None}


def test_descriptors_are_closed_whatever_happens(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("a/nothing")
    os.mkfifo(tmp_path / "fifo")
    paths = ("a/file", "a", "a/file/x", "a/nothing", "loop", "dangling", "fifo", "a\0b", "a/../a/./b/..", "n" * 300)
    begun = _descriptors()

    def use() -> None:
        root = Root(tmp_path)
        before = _descriptors()
        for path in paths:
            _ask_all(root, path)
        assert _descriptors() == before == begun + 1

    use()
    assert _descriptors() == begun


# What was not seen


def test_what_is_simply_not_there_is_no_doubt(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    root = Root(tmp_path)
    for path in ("/nothing", "/a/nothing", "/nothing/at/all", "/link/nothing"):
        assert _ask_all(root, path) == {None}
    assert root.link("/a") is None
    assert not root.doubts


def test_a_link_that_dangles_is_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to("../devices/gone")
    root = Root(tmp_path)
    assert root.read("/device/vendor") is None
    assert root.list("device") is None
    assert _kinds(root) == [(DoubtKind.MISSING, "/device/vendor"), (DoubtKind.MISSING, "/device")]
    assert root.link("/device") == "gone"


def test_links_in_a_circle_end_in_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    root = Root(tmp_path)
    assert root.read("/x") is None
    assert _kinds(root) == [(DoubtKind.UNREADABLE, "/x")]
    with pytest.raises(Missing, match="in a circle"):
        root.open("/x")


def test_a_fifo_is_not_waited_for_and_is_a_doubt(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "version")
    root = Root(tmp_path)
    assert root.read("/version") is None
    assert _kinds(root) == [(DoubtKind.UNREADABLE, "/version")]
    with pytest.raises(BadInput, match="found a FIFO"):
        root.open("/version")


def test_reading_is_bounded_and_the_bound_is_a_doubt(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 34)
    root = Root(tmp_path)
    assert root.read("/big", 4096, head=True) == bytes(4096)
    assert not root.doubts
    assert root.read("/big", 4096) == bytes(4096)
    assert _kinds(root) == [(DoubtKind.BOUND, "/big")]
    with pytest.raises(DamagedInput, match="limit of 4096"):
        root.content("/big", 4096)
    (tmp_path / "small").write_bytes(bytes(4096))
    assert root.read("/small", 4096) == root.content("/small", 4096) == bytes(4096)
    assert len(root.doubts) == 1


def test_listing_is_bounded_and_the_bound_is_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    root = Root(tmp_path)
    assert root.list("/") == ("0", "1", "2", "3", "4")
    monkeypatch.setattr("ejectable.intake.root.MAX_ENTRIES", 5)
    assert len(root.list("/") or ()) == 5
    assert not root.doubts
    monkeypatch.setattr("ejectable.intake.root.MAX_ENTRIES", 4)
    assert len(root.list("/") or ()) == 4
    assert _kinds(root) == [(DoubtKind.BOUND, "/")]


@AS_ROOT
def test_what_may_not_be_read_is_a_permission_not_an_absence(public: Path) -> None:
    (public / "secret").write_text("x")
    (public / "secret").chmod(0)
    (public / "closed/inner").mkdir(parents=True)
    (public / "closed").chmod(0o700)
    with as_nobody():
        root = Root(public)
        assert root.read("/secret") is None
        assert root.read("/closed/file") is None
        assert root.list("/closed") is None
        assert root.is_dir("closed/inner") is False
        with pytest.raises(Denied, match="may not be read"):
            root.open("/secret")
    assert root.denied == {"/secret", "/closed/file", "/closed", "/closed/inner"}
    assert {doubt.kind for doubt in root.doubts} == {DoubtKind.PERMISSION}


@AS_ROOT
def test_a_root_that_may_not_be_entered_says_so(public: Path) -> None:
    (public / "closed/tree").mkdir(parents=True)
    (public / "closed").chmod(0o700)
    with as_nobody(), pytest.raises(Denied, match="may not be read"):
        Root(public / "closed/tree")


def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(Missing, match="no such directory"):
            Root(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="expected a directory"):
        Root(tmp_path / "file")


# What was read


def test_a_recording_changes_with_all_that_was_read_and_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a")
    (tmp_path / "large").write_bytes(bytes(1 << 17))
    (tmp_path / "link").symlink_to("file")
    root = Root(tmp_path)

    def look() -> tuple[str | None, bool]:
        with root.recording() as recording:
            root.read("/file")
            root.content("/large", 1 << 20)
            root.list("/folder")
            root.link("/link")
            root.is_dir("/nothing")
            root.resolve("/link")
        return recording.key(), root.unchanged(first.seen)

    with root.recording() as first:
        root.read("/file")
        root.open("/large").close()
        root.list("/folder")
        root.link("/link")
        root.exists("/nothing")
        root.resolve("/link")
    before = look()
    assert before == (first.key(), True)
    (tmp_path / "other").write_text("not looked at")
    assert look() == before

    def swap() -> None:
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("large")

    def rewrite() -> None:
        """Another content, everything that stat(2) tells being the same but the time of the change."""
        was = (tmp_path / "large").stat()
        (tmp_path / "large").write_bytes(b"1" + bytes((1 << 17) - 1))
        os.utime(tmp_path / "large", ns=(was.st_atime_ns, was.st_mtime_ns))

    keys = {before[0]}
    changes: tuple[Callable[[], object], ...] = (
        lambda: (tmp_path / "file").write_text("b"),
        (tmp_path / "folder/new").touch,
        (tmp_path / "nothing").mkdir,
        swap,
        rewrite,
    )
    for change in changes:
        change()
        key, unchanged = look()
        assert not unchanged
        assert key not in keys
        keys.add(key)


def test_in_a_tree_the_content_counts_whatever_its_times_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes an image sets the times, the change of the inode included."""
    monkeypatch.setattr("ejectable.intake.seen.identity_of", lambda _: "the same")
    monkeypatch.setattr("ejectable.intake.root.identity_of", lambda _: "the same")
    (tmp_path / "module").write_bytes(bytes(1 << 17))
    root = Root(tmp_path)
    with root.recording() as recording:
        root.open("/module").close()
    assert root.unchanged(recording.seen)
    (tmp_path / "module").write_bytes(b"1" + bytes((1 << 17) - 1))
    assert not root.unchanged(recording.seen)


def test_a_file_that_is_replaced_before_the_recording_ends_is_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "module").write_bytes(b"1")
    root = Root(tmp_path)
    with root.recording() as quiet:
        root.open("/module").close()
    with root.recording() as recording:
        root.open("/module").close()
        (tmp_path / "new").write_bytes(b"2")
        (tmp_path / "new").replace(tmp_path / "module")
    assert not quiet.changed
    assert [doubt.kind for doubt in recording.changed] == [DoubtKind.CHANGING]


def test_doubts_belong_to_the_recordings_that_were_open(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nothing")
    root = Root(tmp_path)
    with root.recording() as outer:
        with root.recording() as before:
            pass
        with root.recording() as inner:
            root.read("/dangling")
        with root.recording() as after:
            pass
    assert not before.doubts
    assert not after.doubts
    assert inner.doubts == outer.doubts == root.doubts
    assert len(root.doubts) == 1


# Walking and writing


def test_walking_follows_no_link_and_says_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").touch()
    (tmp_path / "a/b/up").symlink_to("..")
    root = Root(tmp_path)
    assert list(root.walk()) == [("/", ["a"], []), ("/a", ["b"], ["file"]), ("/a/b", [], ["up"])]
    entered = []
    for folder, folders, _ in root.walk("a"):
        folders.clear()
        entered.append(folder)
    assert entered == ["/a"]
    assert not root.doubts
    assert [folder for folder, _, _ in root.walk(most=2)] == ["/"]
    assert _kinds(root) == [(DoubtKind.BOUND, "/a")]


def test_walking_ends_in_the_deep(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(100):
        deep /= "d"
    deep.mkdir(parents=True)
    root = Root(tmp_path)
    assert len(list(root.walk())) == 65
    assert [kind for kind, _ in _kinds(root)] == [DoubtKind.BOUND]


def test_a_folder_to_write_in_is_found_and_made_inside(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "real").mkdir(parents=True)
    (tree / "etc").symlink_to("/real")
    (tree / "out").symlink_to("/../../outside")
    root = Root(tree)
    made: list[str] = []
    with root.directory("/etc/sysctl.d/x", make=True, made=made) as folder:
        folder.write("file", b"1")
    assert made == ["/etc/sysctl.d", "/etc/sysctl.d/x"]
    assert (tree / "real/sysctl.d/x/file").read_bytes() == b"1"
    with pytest.raises(FileNotFoundError):
        root.directory("/etc/nothing")
    with pytest.raises(OSError, match="irectory"):
        root.directory("/out/x", make=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]
    assert not (tree / "outside").exists()
