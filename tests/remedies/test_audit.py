# SPDX-License-Identifier: GPL-2.0-or-later
"""The log of changes is no trap: whatever stands in its place is neither waited for nor written to."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ejectable.remedies import audit


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    """Whoever waits for ever fails after ten seconds instead."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _record(folder: Path) -> None:
    audit.record(str(folder), what="a", before="b", after="c", undo="d", live=False)


def test_a_fifo_in_place_of_the_log_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / audit.AUDIT_LOG)
    _record(tmp_path)
    reader = os.open(tmp_path / audit.AUDIT_LOG, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _record(tmp_path)  # with a reader, opening would succeed
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_place_of_the_log_is_not_written_through(tmp_path: Path, link: object) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    assert callable(link)
    link(victim, tmp_path / audit.AUDIT_LOG)
    _record(tmp_path)
    assert victim.read_text() == "kept"


def test_a_line_is_added_for_each_change(tmp_path: Path) -> None:
    _record(tmp_path)
    _record(tmp_path)
    assert len((tmp_path / audit.AUDIT_LOG).read_text().splitlines()) == 2
