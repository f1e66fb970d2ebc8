# SPDX-License-Identifier: GPL-2.0-or-later
"""Files are opened without surprises and written whole or not at all."""

import io
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ejectable.errors import BadInput, DamagedInput, Missing
from ejectable.intake import open_regular, read_bounded, write_atomically


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights for a while; as somebody else there is nothing to drop."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadInput, match="found a FIFO"):
        open_regular(tmp_path / "fifo")


def test_folders_devices_and_sockets_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="found a directory"):
        open_regular(tmp_path)
    with pytest.raises(BadInput, match="found a character device"):
        open_regular("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(BadInput, match="socket"):
            open_regular(tmp_path / "socket")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no such file"):
        open_regular(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="no such file"):
        open_regular(tmp_path / "file" / "below")


def test_a_file_that_may_not_be_read_says_so(public_folder: Path) -> None:
    secret = public_folder / "secret"
    secret.touch(mode=0)
    with as_nobody(), pytest.raises(Missing, match="may not be read"):
        open_regular(secret)


def test_reading_stops_at_the_limit() -> None:
    assert read_bounded(io.BytesIO(b"12345"), 5, name="x") == b"12345"
    with pytest.raises(DamagedInput, match="limit of 4 bytes"):
        read_bounded(io.BytesIO(b"12345"), 4, name="x")


def test_a_file_is_written_whole_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    write_atomically(target, b"new", mode=0o600)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OSError, match="irectory"):
        write_atomically(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
