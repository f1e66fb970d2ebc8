# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever people do to the files of an affected kernel, it is never called safe. A sample of `make attack`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attack.artefacts import ARTEFACTS
from tests.attack.harness import Artefact, Case, attack, cases
from tests.attack.steps import STEPS

pytestmark = pytest.mark.kernels

SMALL = [artefact for artefact in ARTEFACTS if artefact.small]
SAMPLE = [*cases(ARTEFACTS, STEPS, pairs=False, most=90), *cases(SMALL, STEPS, pairs=True, most=60)]


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_what_is_affected_is_never_called_safe(case: Case, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    outcome = attack(case, tmp_path)
    assert outcome.allowed, f"{outcome.name}: exit code {outcome.code}\n{outcome.said}"


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda artefact: artefact.name)
def test_as_it_is_the_affected_one_is_affected_and_its_fixed_twin_is_fixed(artefact: Artefact, tmp_path: Path) -> None:
    affected = attack(Case(artefact, ()), tmp_path / "affected")
    assert affected.code == artefact.code, affected.said
    twin = attack(Case(Artefact(artefact.name, artefact.kind, _twin_of(artefact)), ()), tmp_path / "fixed")
    assert twin.code == 0, twin.said
    assert ("NOT THIS DEFECT" if artefact.kind == "log" else "FIXED") in twin.said


def _twin_of(artefact: Artefact) -> Callable[[Path, str], Path]:
    return lambda folder, _variant: artefact.build(folder, "fixed")
