# SPDX-License-Identifier: GPL-2.0-or-later
"""A fingerprint is the bug's: another boot, layout, offset, CPU, process or time gives the same, another bug not."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ejectable.crash.logs import read_bytes
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

# Those whose report a boot later would tell again, word for word but for its numbers.
AGAIN = [
    load(path)
    for path in FIXTURES
    if path.stem
    in (
        *("defect-disk-acpi-eject-printk", "gpf-6.11", "bug-list", "kasan-uaf", "warning", "hung-mutex"),
        *("soft-lockup", "ubsan-index", "arm64-null", "rcu-interrupted", "refcount", "deadlock-circular"),
    )
]
FRAME = re.compile(rb"(\w)\+0x[0-9a-f]+/0x[0-9a-f]+")


def _prints(log: bytes) -> list[str]:
    return [event.fingerprint for event in read_bytes(log, "log").events]


def _of_another_boot(log: bytes, rng: random.Random) -> bytes:
    def frame(match: re.Match[bytes]) -> bytes:
        size = rng.randrange(0x20, 0x4000)
        return b"%s+%#x/%#x" % (match[1], rng.randrange(size), size)

    def address(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%012x" % rng.randrange(16**12)

    log = FRAME.sub(frame, log)
    log = re.sub(rb"\b(ffff)[0-9a-f]{12}\b", address, log)
    log = re.sub(rb"CPU: \d+ ", b"CPU: %d " % rng.randrange(64), log)
    log = re.sub(rb"PID: \d+ ", b"PID: %d " % rng.randrange(1, 99999), log)
    later = rng.randrange(1, 9000)
    return re.sub(rb"^\[ *(\d+)\.", lambda match: b"[%5d." % (int(match[1]) + later), log, flags=re.MULTILINE)


def test_there_is_something_to_print() -> None:
    assert len(AGAIN) == 12
    assert all(_prints(fixture.log) for fixture in AGAIN)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(AGAIN), st.integers(0, 2**32))
def test_the_same_bug_on_another_boot_has_the_same_fingerprint(fixture: object, seed: int) -> None:
    log: bytes = fixture.log  # type: ignore[attr-defined]
    assert _prints(_of_another_boot(log, random.Random(seed))) == _prints(log)


@pytest.mark.parametrize("fixture", AGAIN, ids=lambda fixture: fixture.name)
def test_another_function_to_blame_gives_another_fingerprint(fixture: object) -> None:
    log: bytes = fixture.log  # type: ignore[attr-defined]
    (first, *_) = read_bytes(log, "log").events
    assert first.function is not None
    other = re.sub(rb"\b%s\b" % re.escape(first.function.encode()), b"quite_another_place", log)
    assert _prints(other)[0] != first.fingerprint


def test_no_two_kinds_of_crash_share_a_fingerprint() -> None:
    kinds = ("kasan", "gpf", "bug", "warning", "hung", "soft", "ubsan", "near", "panic", "rcu", "page", "lock")
    found: dict[str, set[tuple[str, str | None]]] = {}
    for path in FIXTURES:
        if path.stem.startswith(kinds):
            for event in read_bytes(load(path).log, path.stem).events:
                found.setdefault(event.fingerprint, set()).add((event.kind, event.function))
    assert len(found) >= 50
    assert all(len(same) == 1 for same in found.values())
