# SPDX-License-Identifier: GPL-2.0-or-later
"""A root is a wall: nothing outside of it is read, whatever the links in it say."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.errors import BadInput, Missing
from ejectable.host.root import Root


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


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    assert Root(tmp_path).read("/x") is None


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "version")
    assert Root(tmp_path).read("/version") is None


def test_reading_is_bounded(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 34)
    assert Root(tmp_path).read("/big", 4096) == bytes(4096)


def test_what_may_not_be_read_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("x")
    # The tests may run as root, whom no permission stops: open(2) answers as it does to anybody else.
    monkeypatch.setattr(os, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    root = Root(tmp_path)
    assert root.read("/secret") is None
    assert root.denied == {"/secret"}


def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no such directory"):
        Root(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="expected a directory"):
        Root(tmp_path / "file")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "..", ".", "/", "l", "m"]), max_size=8).map("/".join))
def test_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.mktemp("out")
    tree = base / "tree"
    (tree / "a/b").mkdir(parents=True)
    (base / "secret").write_text("secret")
    (tree / "l").symlink_to("../../../a")
    (tree / "a/m").symlink_to(base)
    root = Root(tree)
    for tail in ("", "/secret", "/../secret"):
        assert root.read(path + tail) is None
        resolved = root.resolve(path + tail)
        assert resolved is None or (tree / resolved.lstrip("/")).resolve().is_relative_to(tree.resolve())
