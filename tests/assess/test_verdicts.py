# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of verdicts touches its own files only, in a folder of its own, and believes nobody else's."""

import os
from pathlib import Path

import pytest

from ejectable.assess.verdicts import MAX_KEPT, Verdicts
from ejectable.model import Finding, KernelReport, Status

REPORT = KernelReport(
    path="/boot/vmlinuz",
    member=None,
    release="6.1.0",
    banner=None,
    arch="x86_64",
    build_id="ab",
    format="bzImage",
    virtio_pci="builtin",
    findings=(Finding("CVE-2024-42134", Status.AFFECTED, None, "It is.", (), conflict=False),),
)
KEY = ("key",)


def _cache(base: Path) -> Verdicts:
    return Verdicts(folder=base / "ejectable" / "verdicts")


def _foreign(folder: Path) -> list[str]:
    """More files than the cache would keep, each with a name that ends as its own do."""
    folder.mkdir(parents=True)
    for number in range(MAX_KEPT + 88):
        (folder / f"{number}.json").touch()
        os.utime(folder / f"{number}.json", (number, number))
    return sorted(path.name for path in folder.iterdir())


def test_a_verdict_is_found_again(tmp_path: Path) -> None:
    _cache(tmp_path).put(KEY, REPORT)
    assert _cache(tmp_path).get(KEY) == REPORT
    assert _cache(tmp_path).get(("other",)) is None
    assert (tmp_path / "ejectable/verdicts").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("linked", ["ejectable", "ejectable/verdicts"])
def test_a_link_in_place_of_the_cache_is_not_followed(tmp_path: Path, linked: str) -> None:
    there = tmp_path / "documents"
    names = _foreign(there / "verdicts" if linked == "ejectable" else there)
    base = tmp_path / "cache"
    (base / linked).parent.mkdir(parents=True)
    (base / linked).symlink_to(there)
    _cache(base).put(KEY, REPORT)
    assert _cache(base).get(KEY) is None
    folder = there / "verdicts" if linked == "ejectable" else there
    assert sorted(path.name for path in folder.iterdir()) == names


def test_only_verdicts_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "ejectable/verdicts"
    names = _foreign(folder)
    (tmp_path / "ejectable").chmod(0o700)
    folder.chmod(0o700)
    for number in range(MAX_KEPT + 5):
        (folder / f"{number:064x}.json").touch()
        os.utime(folder / f"{number:064x}.json", (number, number))
    _cache(tmp_path).put(KEY, REPORT)
    left = {path.name for path in folder.iterdir()}
    assert left.issuperset(names)
    assert len(left) == len(names) + MAX_KEPT
    assert _cache(tmp_path).get(KEY) == REPORT


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_in_another_users_home_is_not_used(tmp_path: Path) -> None:
    """As with `sudo -E`: the folder is theirs, and so is what they put into it later."""
    (tmp_path / "ejectable").mkdir()
    os.chown(tmp_path / "ejectable", 65534, 65534)
    _cache(tmp_path).put(KEY, REPORT)
    assert not list((tmp_path / "ejectable").iterdir())


def test_a_fifo_in_place_of_a_verdict_is_not_waited_for(tmp_path: Path) -> None:
    _cache(tmp_path).put(KEY, REPORT)
    (kept,) = (tmp_path / "ejectable/verdicts").iterdir()
    kept.unlink()
    os.mkfifo(kept)
    assert _cache(tmp_path).get(KEY) is None
