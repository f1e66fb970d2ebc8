# SPDX-License-Identifier: GPL-2.0-or-later
"""Test kernels come from where the system's own settings say that Debian is; nobody's address is written down here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus import archive
from ejectable.errors import Missing

# As `apt-get indextargets` and python-apt's templates have them, with another archive before the one that is meant.
APT = """\
stable https://other.example/linux/debian/
main http://one.example/ubuntu/
main https://two.example/mirror/debian/
main https://two.example/mirror/debian-security/
"""
PYTHON_APT = "Suite: {series}\nRepositoryType: deb\nBaseURI: https://three.example/debian/\nComponent: main\n"


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    archive.mirror.cache_clear()
    yield
    archive.mirror.cache_clear()


def settings(monkeypatch: pytest.MonkeyPatch, folder: Path, *, apt: str, python_apt: str) -> None:
    """An apt-get that prints `apt`, and python-apt's file."""
    (folder / "answer").write_text(apt)
    (folder / "apt-get").write_text(f"#!/bin/sh\nexec cat {folder}/answer\n")
    (folder / "apt-get").chmod(0o755)
    (folder / "Debian.info").write_text(python_apt)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(archive, "TEMPLATE", folder / "Debian.info")
    monkeypatch.delenv("EJECTABLE_DEBIAN", raising=False)


def test_it_is_where_apt_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings(monkeypatch, tmp_path, apt=APT, python_apt=PYTHON_APT)
    assert archive.mirror() == "http://two.example/mirror/debian"


def test_on_ubuntu_it_is_where_python_apt_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings(monkeypatch, tmp_path, apt="main http://one.example/ubuntu/\n", python_apt=PYTHON_APT)
    assert archive.mirror() == "http://three.example/debian"


def test_a_mirror_that_is_named_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings(monkeypatch, tmp_path, apt=APT, python_apt=PYTHON_APT)
    monkeypatch.setenv("EJECTABLE_DEBIAN", "http://four.example/")
    assert archive.sources("/key.gpg").splitlines() == [
        "deb [signed-by=/key.gpg] http://four.example/debian bookworm main",
        "deb [signed-by=/key.gpg] http://four.example/debian bookworm-updates main",
        "deb [signed-by=/key.gpg] http://four.example/debian-security bookworm-security main",
    ]


def test_where_nobody_says_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings(monkeypatch, tmp_path, apt="E: what?\n", python_apt="")
    with pytest.raises(Missing) as error:
        archive.mirror()
    assert "EJECTABLE_DEBIAN" in (error.value.hint or "")
