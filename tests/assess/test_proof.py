# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in guests prove: only what they exercised, and only by an advisory's signature."""

import msgspec
import pytest

from ejectable.advisories import Scenario
from ejectable.assess.proof import Proof, claims_of, status_of
from ejectable.model import GuestEvent, Run, RunResult, Status

ID = "CVE-2024-42134"
EVENT = GuestEvent("trigger", "warning", "WARNING in x", "x", None, 7, fatal=False, removal=True, advisory=None)


def run(result: RunResult = "survived", *, mode: str = "legacy", advisory: str | None = None) -> Run:
    return Run(
        kernel="vmlinuz",
        arch="x86_64",
        accelerator="tcg",
        machine="pc",
        device="disk",
        mode=mode,
        trigger="acpi-eject",
        result=result,
        advisory=advisory,
        boot_s=1.0,
        verdict_s=2.0,
        console=None,
        driven="legacy" if mode == "legacy" else "modern",
    )


def proof(*runs: Run, named: bool = False) -> Proof:
    return Proof(
        runs=runs,
        skipped=(),
        reasons=(),
        accelerator="tcg",
        accelerator_why="",
        evidence=None,
        claims=claims_of(runs, (ID,)),
        named=named,
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_modern_device_that_survives_proves_nothing(named: bool) -> None:
    given = proof(run(mode="modern"), named=named)
    assert [(claim.verdict, claim.exercised) for claim in given.claims] == [("open", False)]
    assert given.status is Status.UNKNOWN


def test_the_run_that_the_advisory_demands_earns_the_safe_word_beside_others_too() -> None:
    assert proof(run()).status is Status.NOT_AFFECTED
    assert proof(run(), run(mode="modern")).status is Status.NOT_AFFECTED


@pytest.mark.parametrize("result", ["hang", "crashed-otherwise", "no-boot", "no-unplug"])
def test_what_ended_without_a_signature_is_unknown_and_spoils_a_good_run_beside_it(result: RunResult) -> None:
    assert status_of(run(result)) is Status.UNKNOWN
    assert proof(run(result)).status is Status.UNKNOWN
    assert proof(run(), run(result, mode="modern")).status is Status.UNKNOWN


@pytest.mark.parametrize("result", ["oops", "panic", "hang", "survived"])
def test_a_signature_is_affected_whatever_became_of_the_guest(result: RunResult) -> None:
    given = proof(run(result, advisory=ID), run())
    assert given.status is Status.AFFECTED
    assert any("Do not hot-unplug" in step for step in given.next_steps)


def test_a_guest_that_survived_with_a_warning_in_the_removal_is_not_called_safe() -> None:
    assert proof(msgspec.structs.replace(run(), events=(EVENT,))).status is Status.UNKNOWN
    elsewhere = msgspec.structs.replace(EVENT, removal=False)
    assert proof(msgspec.structs.replace(run(), events=(elsewhere,))).status is Status.NOT_AFFECTED


def test_runs_without_any_claim_prove_nothing() -> None:
    assert msgspec.structs.replace(proof(run()), claims=()).status is Status.UNKNOWN


def test_a_run_without_the_properties_that_show_a_defect_says_nothing_of_it() -> None:
    scenario = Scenario("a balloon that reports", devices=("balloon",), properties={"free-page-reporting": "on"})
    plain = msgspec.structs.replace(run(), device="balloon")
    reporting = msgspec.structs.replace(plain, properties={"free-page-reporting": "on"})
    assert scenario.judge([plain], "X").exercised is False
    assert scenario.judge([plain, reporting], "X").verdict == "refuted"
