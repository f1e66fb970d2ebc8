# SPDX-License-Identifier: GPL-2.0-or-later
"""What root runs and compiles is in nobody else's hands: the headers of `fix live`, whoever owns them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import Missing
from ejectable.remedies import module_build
from ejectable.remedies.live.toolchain import find_headers
from ejectable.remedies.ownership import other_writer, tree_writer
from ejectable.remedies.upgrade.folders import cache, private
from ejectable.remedies.workspace import workspace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="what others could make root do is shown as root")
RELEASE = "6.1.0-50-cloud-amd64"
CONF = "CONFIG_MODULES=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_GCC_VERSION=120200\n"
FILES = {
    "Makefile": "all:\n\tfalse\n",
    "Module.symvers": "",
    "include/config/auto.conf": CONF,
    "include/generated/utsrelease.h": f'#define UTS_RELEASE "{RELEASE}"\n',
    "scripts/sign-file": "#!/bin/sh\n",
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine whose headers are a folder of their own, as packages have it: build is a link to them."""
    for name, text in FILES.items():
        path = tmp_path / "usr/src/headers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "lib/modules" / RELEASE).mkdir(parents=True)
    (tmp_path / "lib/modules" / RELEASE / "build").symlink_to("/usr/src/headers")
    return tmp_path


def given(path: str) -> Callable[[Path], None]:
    return lambda machine: os.chown(machine / path, 65534, 65534)


def mode(path: str, bits: int) -> Callable[[Path], None]:
    return lambda machine: (machine / path).chmod(bits)


def led_away(machine: Path) -> None:
    """scripts is a link, as in Debian's headers, to a folder of somebody else."""
    (machine / "usr/src/headers/scripts").rename(machine / "theirs")
    (machine / "usr/src/headers/scripts").symlink_to(machine / "theirs")
    os.chown(machine / "theirs/sign-file", 65534, 65534)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (given("usr/src/headers"), "usr/src/headers belongs to user 65534"),
        (given("usr/src"), "usr/src belongs to user 65534"),
        (given("usr/src/headers/Makefile"), "Makefile belongs to user 65534"),
        (given("usr/src/headers/scripts/sign-file"), "sign-file belongs to user 65534"),
        (mode("usr/src/headers/scripts", 0o775), "scripts may be written by others"),
        (mode("usr/src/headers", 0o1777), "headers may be written by others"),
        (mode("usr/src/headers/Makefile", 0o666), "Makefile may be written by others"),
        (led_away, "theirs/sign-file belongs to user 65534"),
    ],
)
def test_headers_that_others_may_write_are_not_built_in(
    machine: Path, change: Callable[[Path], None], named: str
) -> None:
    assert find_headers(host.Root(machine), RELEASE, None).release == RELEASE
    change(machine)
    with pytest.raises(Missing, match="not in root's hands alone") as caught:
        find_headers(host.Root(machine), RELEASE, None)
    assert named in caught.value.message
    assert "sudo chown -R root: /usr/src/headers" in (caught.value.hint or "")


def test_a_folder_with_the_sticky_bit_is_no_way_in_but_no_place_to_build(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    (place / "ours").mkdir()
    assert other_writer(place / "ours") is None
    assert other_writer(place) is not None
    place.chmod(0o777)
    assert other_writer(place / "ours") is not None


def test_a_tree_of_links_in_a_circle_is_looked_at_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/nowhere").symlink_to("/nonexistent/x")
    assert tree_writer(tmp_path / "a") is None
    (tmp_path / "a/b/loop").symlink_to("loop")
    assert tree_writer(tmp_path / "a") is None


@pytest.mark.parametrize("what", ["owner", "mode"])
def test_nothing_is_built_where_others_may_put_something_else_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    with workspace("test") as folder:
        assert Path(folder.name).parent == place
    os.chown(place, 65534, 65534) if what == "owner" else place.chmod(0o777)
    for folder_of_one_run in (workspace("test"), private()):
        with pytest.raises(Missing, match=r"Nothing is built or unpacked in .*theirs"), folder_of_one_run:
            pass
    place.chmod(0o1777)
    os.chown(place, 0, 0)
    with workspace("test"):
        pass


def test_a_cache_that_others_may_write_lends_root_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt.conf(5) may name programs, and ours lies in the cache."""
    theirs = tmp_path / "home/.cache/ejectable/apt"
    theirs.mkdir(parents=True)
    os.chown(tmp_path / "home", 65534, 65534)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    folder = cache("apt")
    assert not folder.is_relative_to(tmp_path / "home")
    folder.chmod(0o777)
    with pytest.raises(Missing, match=r"not root's alone|another user"):
        cache("apt")


def test_headers_that_others_may_write_are_not_built_in_by_source_patch_either(machine: Path) -> None:
    headers = machine / "usr/src/headers"
    module_build._configuration(str(headers))
    os.chown(headers / "Makefile", 65534, 65534)
    with pytest.raises(Missing, match="not in root's hands alone"):
        module_build._configuration(str(headers))
