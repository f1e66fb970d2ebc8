# SPDX-License-Identifier: GPL-2.0-or-later
"""That a kernel boots next is said only where a boot loader's own files say so."""

import pytest

from ejectable.host import NextBoot
from ejectable.remedies.upgrade.boot import not_next
from ejectable.remedies.upgrade.installed import Ready
from ejectable.remedies.upgrade.verify import Judged

GUESS = "links and names in /boot"


@pytest.mark.parametrize(("certain", "enough"), [(True, True), (False, False)])
def test_a_mere_reboot_is_enough_where_it_is_certain_alone(certain: bool, enough: bool) -> None:
    boots = NextBoot("6.1.0-56-amd64", GUESS, certain=certain)
    found = Ready("6.1.0-56-amd64", "/boot/vmlinuz-6.1.0-56-amd64", Judged("good", "it has the guard"), boots)
    assert found.next is enough


@pytest.mark.parametrize(
    ("boots", "said"),
    [
        (NextBoot("new", GUESS, certain=False), f"It may boot next, but that is not certain ({GUESS})."),
        (NextBoot("old", GUESS, certain=False), f"But old may boot next ({GUESS})."),
        (NextBoot("old", "grub", certain=True), "But old boots next (grub)."),
        (NextBoot(None, GUESS, certain=False), f"Which kernel boots next could not be told: {GUESS}."),
    ],
)
def test_what_is_said_where_another_boots_or_may(boots: NextBoot, said: str) -> None:
    assert not_next(boots, "new") == said
