# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan as a whole: what is recommended, what is refused, and what ends half-way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from ejectable import host
from ejectable.errors import Missing, WrongUsage
from ejectable.model import Remedy
from ejectable.remedies import REMEDIES, Request, Situation, execute, remediation
from ejectable.remedies.changes import Changes
from ejectable.remedies.panic_policy import PanicPolicy
from ejectable.remedies.remediation import Remediation
from ejectable.remedies.steps import Reach
from tests.host.trees import Machine, affected_module
from tests.one import the_first
from tests.remedies.own_state import IN_A_CHILD

pytestmark = pytest.mark.kernels


def situation(tree: Path) -> Situation:
    return Situation(host.Root(tree), the_first(), cache=False, offline=True)


@pytest.fixture
def affected(tmp_path: Path) -> Path:
    return Machine(module=affected_module(), panic_on_oops=0).build(tmp_path / "machine")


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_is_there_and_plans_for_any_machine(name: str, affected: Path) -> None:
    one = remediation(name)
    assert one.name == name
    (line,) = execute.plan(situation(affected), Request(), [name])
    assert line.remedy == name
    assert line.why
    assert line.state in ("possible", "impossible", "done"), "one that is asked for by name is not ranked"


def test_the_plan_recommends_one_cure_and_one_thing_to_live_with(affected: Path) -> None:
    plan = execute.plan(situation(affected), Request())
    assert {line.remedy for line in plan} == set(REMEDIES)
    states = [line.state for line in plan]
    assert states == sorted(states, key=["done", "recommended", "possible", "impossible"].index)
    recommended = [remediation(line.remedy) for line in plan if line.state == "recommended"]
    assert len({one.durable for one in recommended}) == len(recommended)
    assert any(not one.durable for one in recommended)


def test_where_nothing_would_crash_nothing_is_recommended(tmp_path: Path) -> None:
    tree = Machine(devices=()).build(tmp_path / "machine")  # a stock kernel: it never had the code
    plan = execute.plan(situation(tree), Request())
    assert not [line for line in plan if line.state == "recommended"]


def test_a_remedy_that_raises_while_it_plans_is_impossible_with_that_reason(
    affected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(self: PanicPolicy, situation: Situation, request: Request) -> Remedy:
        raise Missing("The oracle is closed.", hint="Come back tomorrow.")

    monkeypatch.setattr(PanicPolicy, "plan", plan)
    (line,) = execute.plan(situation(affected), Request(), ["panic-policy"])
    assert (line.state, line.why) == ("impossible", "The oracle is closed. Come back tomorrow.")


def test_what_needs_root_says_so_before_anything_is_touched(affected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Missing, match="takes root") as caught:
        execute.apply(situation(affected), "panic-policy", Request())
    assert caught.value.hint == f"sudo ejectable fix panic-policy --apply --root {affected}"
    assert not (affected / "var/lib/ejectable").exists()


def test_what_works_on_a_running_machine_only_refuses_a_tree(affected: Path) -> None:
    live = [name for name in REMEDIES if remediation(name).where == "live" and remediation(name).applies]
    assert live
    for name in live:
        with pytest.raises(WrongUsage, match="runs on only"):
            execute.apply(situation(affected), name, Request())


def test_an_unknown_remedy_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="no remedy"):
        remediation("prayer")


SLOW = """
import sys, time
from pathlib import Path
from ejectable import host
from tests.one import the_first
from ejectable.remedies import Request, Situation, execute, registry as remedies
from tests.remedies.test_execute import Slow
remedies.REMEDIES["slow"] = "tests.remedies.test_execute:Slow"
execute.apply(Situation(host.Root(sys.argv[1]), the_first(), cache=False), "slow", Request())
"""


class Slow(Remediation):
    """Changes a file, and then takes its time."""

    name: ClassVar[str] = "slow"
    reach: ClassVar[Reach] = Reach(files=["/etc/hostname"])
    durable: ClassVar[bool] = True
    where = "tree"

    def plan(self, situation: Situation, request: Request) -> Remedy:
        raise NotImplementedError

    def apply(self, situation, request, changes: Changes):  # type: ignore[no-untyped-def]
        changes.write("/etc/hostname", b"changed\n")
        print("changed", flush=True)  # noqa: T201
        time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_half_way_undoes_what_was_done(affected: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_CHILD + SLOW, str(affected)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path.cwd(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"changed\n"
        assert (affected / "etc/hostname").read_text() == "changed\n"
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert (affected / "etc/hostname").read_text() == "web-1\n"
    assert execute.left_open(situation(affected)) == ()
