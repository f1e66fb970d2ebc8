# SPDX-License-Identifier: GPL-2.0-or-later
"""What apt's lists say is read as apt means it, and what could not be a package is none."""

import os
import time
from pathlib import Path

import pytest

from ejectable import host
from ejectable.remedies.commands import Finished
from ejectable.remedies.upgrade import apt_lists
from ejectable.remedies.upgrade.apt import Apt
from ejectable.remedies.upgrade.apt_lists import Lists, _policies
from ejectable.remedies.upgrade.backend import Owner, not_newer, plain

# As apt 2.6 prints it: a suite with a low priority (backports), a package that is installed, one that a pin forbids.
POLICY = """\
linux-image-cloud-amd64:
  Installed: 6.1.176-1
  Candidate: 6.1.192-2
  Version table:
     6.12.117-1~bpo12+1 100
        100 http://debian.example/debian bookworm-backports/main amd64 Packages
     6.1.192-2 500
        500 http://debian.example/debian-security bookworm-security/main amd64 Packages
 *** 6.1.176-1 100
        100 /var/lib/dpkg/status
linux-image-6.1.0-56-cloud-amd64:
  Installed: (none)
  Candidate: (none)
  Version table:
     6.1.192-2 -1
        500 http://debian.example/debian-security bookworm-security/main amd64 Packages
linux-image-generic:
  Installed: 6.8.0-39.39
  Candidate: 6.8.0-40.40
  Version table:
     6.8.0-40.40 500 (phased 10%)
        500 http://ubuntu.example/ubuntu noble-updates/main amd64 Packages
"""


def test_the_candidate_is_apts_choice_not_the_newest_there_is() -> None:
    found = _policies(POLICY)
    assert found["linux-image-cloud-amd64"].candidate == "6.1.192-2"
    assert found["linux-image-cloud-amd64"].pinned() == "6.12.117-1~bpo12+1"
    assert found["linux-image-6.1.0-56-cloud-amd64"].candidate is None
    assert found["linux-image-6.1.0-56-cloud-amd64"].pinned() == "6.1.192-2"
    assert (found["linux-image-generic"].candidate, found["linux-image-generic"].pinned()) == ("6.8.0-40.40", None)


@pytest.mark.parametrize("text", ["", "\n\n", "x", "name:\n  Candidate:\n", "a:\nb:\n  Candidate: (none)\n"])
def test_an_answer_that_makes_no_sense_names_no_candidate(text: str) -> None:
    assert all(policy.candidate is None for policy in _policies(text).values())


def test_a_package_of_an_archive_cannot_leave_its_folder_or_become_an_option() -> None:
    assert plain("linux-image-6.8.0-31-generic", "1:6.8.0~rc1-31.31+b1", "amd64")
    for hostile in ("", "../x", "a/b", "-oDebug=1", "a b", "a\nb", "a;b", "$(x)", "ä", "x" * 300):
        assert not plain("linux-image-1", hostile)


def test_a_record_with_a_hostile_version_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(argv: list[str], **_: object) -> Finished:
        version = "../../etc/passwd"
        if "policy" in argv:
            return Finished(tuple(argv), 0, f"linux-image-x:\n  Candidate: {version}\n", "")
        return Finished(
            tuple(argv), 0, f"Package: linux-image-x\nVersion: {version}\nArchitecture: amd64\nSHA256: 0\n", ""
        )

    monkeypatch.setattr(apt_lists, "run", answered)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = Lists(host.Root(tmp_path), offline=True, notes=[], stale=[]).ask(["linux-image-x"])
    assert known["linux-image-x"].candidate is None


def test_lists_that_were_never_fetched_are_told_from_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stale: list[str] = []
    assert "-c" not in Lists(host.Root(tmp_path), offline=True, notes=[], stale=stale).options
    assert "This system has no package lists yet" in stale[0]


def test_lists_that_are_older_than_their_sources_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "var/lib/apt/lists/partial").mkdir(parents=True)
    (tmp_path / "var/lib/apt/lists/deb.example.org_Packages").touch()
    stale: list[str] = []
    assert Lists(host.Root(tmp_path), offline=True, notes=[], stale=stale).options
    assert not stale
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    newer = tmp_path / "etc/apt/sources.list.d/kernels.sources"
    newer.touch()
    os.utime(newer, (time.time() + 60, time.time() + 60))
    assert Lists(host.Root(tmp_path), offline=True, notes=[], stale=stale).options
    assert "older than its list of sources" in stale[0]


class Known(Apt):
    """An apt whose newest kernel is the one in use."""

    def __init__(self, *stale: str) -> None:
        self.stale = list(stale)


def test_without_fresh_lists_it_is_not_known_whether_there_is_a_newer_kernel() -> None:
    owner = Owner("linux-image-6.1.0-50-amd64", "6.1.1-1", "6.1.0-50-amd64", "amd64")
    assert "is the newest kernel that apt offers" in not_newer(Known(), owner)
    for why in ("This system has no package lists yet, and newer ones could not be fetched: no network",):
        said = not_newer(Known(why), owner)
        assert "is not known: This system has no package lists yet" in said
        assert "newest" not in said
