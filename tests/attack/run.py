# SPDX-License-Identifier: GPL-2.0-or-later
"""`make attack`: every transformation alone and every pair, on every artefact that it fits; prints what is not allowed.

A pair is named only where neither of its two steps alone is enough: the smallest input that shows it.
"""

import argparse
import collections
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.attack.artefacts import ARTEFACTS
from tests.attack.files import FILES
from tests.attack.harness import Case, Outcome, attack, cases
from tests.attack.trees import TREES

__all__: list[str] = []

STEPS = (*FILES, *TREES)


_TODO: list[Case] = []  # for the children, which inherit it: what a case does cannot be pickled


def _attack(number: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        return attack(_TODO[number], Path(folder))


def _run(todo: Sequence[Case], jobs: int) -> list[Outcome]:
    _TODO[:] = todo
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return pool.map(_attack, range(len(todo)), chunksize=8)


def main() -> int:
    """Run it; 1 where something safe was said that was not earned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=None, metavar="N", help="at most N pairs (all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="artefacts and transformations whose name holds this")
    options = parser.parse_args()
    for artefact in ARTEFACTS:  # built once, before there are several of us
        with tempfile.TemporaryDirectory() as folder:
            for variant in ("affected", "fixed"):
                Path(folder, variant).mkdir()
                artefact.build(Path(folder, variant), variant)
    singles = [case for case in cases(ARTEFACTS, STEPS, pairs=False) if options.only in case.name]
    alone = _run(singles, options.jobs)
    bad = {outcome.name for outcome in alone if not outcome.allowed}
    together = []
    if options.pairs != 0:
        pairs = [case for case in cases(ARTEFACTS, STEPS, pairs=True, most=options.pairs) if options.only in case.name]
        pairs = [case for case in pairs if not bad & {Case(case.artefact, (step,)).name for step in case.steps}]
        together = _run(pairs, options.jobs)
    found = [outcome for outcome in (*alone, *together) if not outcome.allowed]
    for outcome in found:
        last = (outcome.said.strip().splitlines() or [""])[0]
        sys.stdout.write(f"{outcome.name}: exit code {outcome.code}: {last}\n")
    asked = [outcome for outcome in (*alone, *together) if outcome.fits]
    codes = collections.Counter(outcome.code for outcome in asked)
    sys.stdout.write(
        f"{len(ARTEFACTS)} artefacts, {len(STEPS)} transformations, {len(alone)} alone and {len(together)} in pairs, "
        f"{len(asked)} asked; exit codes {dict(sorted(codes.items()))}; {len(found)} not allowed\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
