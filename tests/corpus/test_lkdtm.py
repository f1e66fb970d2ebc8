# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof with the kernel's crash tests can fail: what the reader misses, invents or mistakes is called wrong."""

import msgspec

from corpus.lkdtm import judge, page, read_console
from ejectable.crash.logs import read_bytes
from tests.crash.fixtures import FIXTURES, load

BUG = next(load(path) for path in FIXTURES if path.stem == "lkdtm-amd64-bug")
DEFECT = next(load(path) for path in FIXTURES if path.stem == "defect-disk-acpi-eject-printk")
HEALTHY = b"".join(b"[    1.%06d] nothing to see, line %d\n" % (number, number) for number in range(40))
BEGUN = b"LKDTM: begin\n"


def test_a_crash_is_held_against_what_the_console_says() -> None:
    one = read_console("x", "BUG", HEALTHY + BEGUN + BUG.log)
    assert (one.outcome, one.kind, one.function, one.wrong) == ("crashed", "bug", "lkdtm_BUG", "")
    assert "lkdtm_BUG" in one.blamed


def test_a_crash_that_was_not_seen_or_not_made_is_wrong() -> None:
    events = read_bytes(BUG.log, "console").events
    assert judge("x", "BUG", BUG.log, []).wrong == "not seen"
    assert judge("x", "BUG", HEALTHY, events).wrong == "nothing happened"


def test_another_function_or_the_defect_is_wrong() -> None:
    (event, *_) = read_bytes(BUG.log, "console").events
    elsewhere = msgspec.structs.replace(event, function="vfs_write")
    assert judge("x", "BUG", BUG.log, [elsewhere]).wrong == "another function"
    (defect, *_) = read_bytes(DEFECT.log, "console").events
    assert judge("x", "BUG", BUG.log, [defect]).wrong == "taken for the defect"


def test_what_came_before_the_test_does_not_count() -> None:
    one = read_console("x", "NONE", BUG.log + BEGUN + HEALTHY)
    assert (one.outcome, one.wrong) == ("quiet", "")


def test_a_guest_that_did_not_boot_is_wrong_and_a_test_that_is_not_there_is_not() -> None:
    assert read_console("x", "BUG", HEALTHY).wrong
    assert read_console("x", "BUG", HEALTHY + BEGUN + b"LKDTM: none\n").outcome == "none"


def test_the_page_counts_what_is_wrong() -> None:
    right = read_console("amd64-gcc", "BUG", BEGUN + BUG.log)
    wrong = msgspec.structs.replace(right, test="WORSE", wrong="not seen")
    text, count = page([right, wrong])
    assert count == 1
    assert "| BUG |  |  | bug in lkdtm_BUG |  |" in text
    assert "**not seen: bug in lkdtm_BUG**" in text
