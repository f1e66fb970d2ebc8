# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of false alarms counts what it should, and hides nothing that was not a clean answer."""

from corpus.lab_false_alarms import RELEASES, Known, page
from ejectable.model import Status


def known(status: Status, detail: str = "") -> Known:
    return Known(RELEASES[0], "disk legacy acpi-eject idle 0", status, "survived", 1, detail, 4.5)


def test_only_affected_is_an_alarm_and_unknown_is_listed_with_its_reason() -> None:
    text = page([known(Status.NOT_AFFECTED), known(Status.UNKNOWN, "it was late"), known(Status.AFFECTED, "wolf")])
    assert "**3 runs, 1 false alarms**" in text
    assert f"| {RELEASES[0]} | 3 | 1 | 1 | 1 |" in text
    assert "it was late" in text
    assert text.index("wolf") < text.index("it was late")
