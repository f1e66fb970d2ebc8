# SPDX-License-Identifier: GPL-2.0-or-later
"""A name that was typed or read wrong is offered as what it may be, and keeps a safe word away."""

import pytest

from ejectable.advisories import choose
from ejectable.advisories.resemblance import closest, resembles
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.model import Judgement, Status
from tests.crash.fixtures import FIXTURES, load

__all__: list[str] = []

DEFECT = load(next(path for path in FIXTURES if path.stem == "defect-amd64-lab")).log
FREED = load(next(path for path in FIXTURES if path.stem == "near-free-irq")).log


def _judged(log: bytes) -> Judgement:
    (event, *_) = read_bytes(log, "log").events
    return judge(event, choose(()))


@pytest.mark.parametrize(
    "typed",
    [
        *(
            "vp_de1_vqs",
            "vp_del_vgs",
            "vpdel_vqs",
            "vp__del_vqs",
            "vp-del-vqs",
            "vp_dle_vqs",
            "vp_del_vq5",
            "Vp_del_vqs",
        ),
        *("yp_del_vqs", "vp_del_vq s", "vp del vqs", "vp_de1_vq5", "vp_del\ufffdvqs", "p_del_vqs"),
    ],
)
def test_a_caller_that_was_typed_wrong_is_never_something_else(typed: str) -> None:
    said = _judged(DEFECT.replace(b"vp_del_vqs", typed.encode()))
    assert said.status in (Status.UNKNOWN, Status.AFFECTED), said.why


@pytest.mark.parametrize("real", ["vm_del_vqs", "vu_del_vqs", "vm_del_vq"])
def test_a_function_that_differs_by_one_letter_by_right_is_itself(real: str) -> None:
    assert _judged(DEFECT.replace(b"vp_del_vqs", real.encode())).status is Status.NOT_AFFECTED


def test_a_name_of_another_known_defect_is_offered_too() -> None:
    said = _judged(FREED.replace(b"free_irq", b"free_lrq"))
    assert said.status is Status.NOT_AFFECTED
    assert "may be free_irq" in said.why
    assert "CVE-2024-37353" in said.why


@pytest.mark.parametrize(("name", "known"), [("do_idle", "do_idle"), ("foo", "fop"), ("vp_find_vqs", "vp_del_vqs")])
def test_what_is_the_same_or_short_or_two_mistakes_away_does_not_resemble(name: str, known: str) -> None:
    assert not resembles(name, known)


def test_the_first_that_fits_is_offered() -> None:
    assert closest("virtblk_rernove", ("vp_reset", "virtblk_remove")) == "virtblk_remove"
    assert closest("kthread", ("vp_reset", "virtblk_remove")) is None
