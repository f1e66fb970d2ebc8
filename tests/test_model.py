# SPDX-License-Identifier: GPL-2.0-or-later
"""A safe word that was not earned cannot be made."""

import msgspec
import pytest

from ejectable.model import SAFE, Doubt, DoubtKind, Finding, Status, earned

DOUBT = Doubt(DoubtKind.BOUND, "/sys/bus/virtio/devices", "More devices than are read.")


def _finding(status: Status, *doubts: Doubt) -> Finding:
    return Finding("X", status, None, "the code was run", (), conflict=False, doubts=doubts)


@pytest.mark.parametrize("status", sorted(SAFE))
def test_a_safe_word_beside_a_doubt_can_be_made_by_no_way(status: Status) -> None:
    with pytest.raises(ValueError, match="beside a doubt"):
        _finding(status, DOUBT)
    with pytest.raises(ValueError, match="beside a doubt"):
        msgspec.structs.replace(_finding(status), doubts=(DOUBT,))
    kept = msgspec.json.encode(_finding(Status.UNKNOWN, DOUBT)).replace(b'"unknown"', f'"{status}"'.encode())
    with pytest.raises(msgspec.ValidationError, match="beside a doubt"):
        msgspec.json.decode(kept, type=Finding)


@pytest.mark.parametrize("status", sorted(SAFE))
def test_a_doubt_makes_a_safe_word_unknown_and_says_why(status: Status) -> None:
    assert earned(status, ()) is status
    doubted = _finding(status).doubted(DOUBT)
    assert (doubted.status, doubted.reason, doubted.doubts) == (Status.UNKNOWN, DOUBT.detail, (DOUBT,))


def test_a_doubt_never_weakens_a_bad_word() -> None:
    doubted = _finding(Status.AFFECTED).doubted(DOUBT)
    assert (doubted.status, doubted.reason, doubted.doubts) == (Status.AFFECTED, "the code was run", (DOUBT,))
