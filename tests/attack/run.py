# SPDX-License-Identifier: GPL-2.0-or-later
"""`make attack`: every transformation alone and every pair, on every artefact that it fits; prints what is not allowed.

    python -m tests.attack.run                                  all of it; some hours on two cores
    python -m tests.attack.run --shard 1/8 --record run.jsonl   an eighth; begun again, it goes on where it stopped
    python -m tests.attack.run --pairs 0 --tool PYTHON PATH     every transformation alone, against another version

Alone comes first, then pairs in an order that mixes all kinds and is the same each time. A pair is tried only where
neither of its two steps alone is enough, so that the smallest input is what is printed.
"""

import argparse
import collections
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tests.attack.artefacts import ARTEFACTS
from tests.attack.harness import Case, Outcome, attack, cases
from tests.attack.steps import STEPS

__all__: list[str] = []

_TODO: list[Case] = []  # for the children, which inherit it: what a case does cannot be pickled
_TOOL: list[str] = []


def _attack(number: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        Path(folder).chmod(0o755)  # some are asked about by nobody
        return attack(_TODO[number], Path(folder), _TOOL)


def _run(todo: Sequence[Case], jobs: int, until: float) -> Iterator[Outcome]:
    _TODO[:] = todo
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=400) as pool:
        for outcome in pool.imap(_attack, range(len(todo)), chunksize=4):
            yield outcome
            if time.time() > until:
                pool.terminate()
                return


class Record:
    """The outcomes so far: in a file, where one is named, so that a run can be taken up again."""

    def __init__(self, path: str | None) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._file = Path(path) if path else None
        if self._file and self._file.exists():
            for line in self._file.read_text().splitlines():
                outcome = msgspec.json.decode(line, type=Outcome)
                self.outcomes[outcome.name] = outcome

    def add(self, outcome: Outcome) -> None:
        """Keep one."""
        self.outcomes[outcome.name] = outcome
        if self._file:
            with self._file.open("a") as file:
                file.write(json.dumps(msgspec.to_builtins(outcome)) + "\n")


def _key(case: Case) -> bytes:
    return hashlib.sha256(case.name.encode()).digest()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=None, metavar="N", help="at most N pairs (all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="artefacts and transformations whose name holds this")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="the Ith of N parts")
    parser.add_argument("--record", metavar="FILE", help="keep the outcomes there, and go on where they end")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--tool", nargs=2, default=(), metavar=("PYTHON", "PATH"), help="attack another version")
    parser.add_argument("--count", action="store_true", help="say how many cases there are, and run none")
    return parser.parse_args()


def main() -> int:
    """Run it; 1 where something safe was said that was not earned."""
    options = _options()
    _TOOL[:] = options.tool
    part, parts = map(int, options.shard.split("/"))
    singles = [case for case in cases(ARTEFACTS, STEPS, pairs=False) if options.only in case.name]
    small = [artefact for artefact in ARTEFACTS if artefact.small]
    pairs = [case for case in cases(small, STEPS, pairs=True) if options.only in case.name]
    pairs = sorted(pairs, key=_key)[: options.pairs]
    if options.count:
        sys.stdout.write(
            f"{len(ARTEFACTS)} artefacts, {len(STEPS)} transformations, {len(singles)} alone, {len(pairs)} pairs\n"
        )
        return 0
    for artefact in ARTEFACTS:  # built once, before there are several of us
        with tempfile.TemporaryDirectory() as folder:
            for variant in ("affected", "fixed"):
                Path(folder, variant).mkdir()
                artefact.build(Path(folder, variant), variant)
    record, until = Record(options.record), time.time() + options.minutes * 60
    for number, every in enumerate((singles, pairs)):
        todo = every
        if number:
            bad = {name for name, outcome in record.outcomes.items() if not outcome.allowed}
            todo = [case for case in every if not any(Case(case.artefact, (step,)).name in bad for step in case.steps)]
        left = [case for case in todo if _key(case)[0] % parts == part - 1 and case.name not in record.outcomes]
        for outcome in _run(left, options.jobs, until) if left and time.time() < until else ():
            record.add(outcome)
            if not outcome.allowed:
                last = (outcome.said.strip().splitlines() or [""])[0 if outcome.code == 0 else -1]
                sys.stdout.write(f"{outcome.name}: exit code {outcome.code}: {last}\n")
                sys.stdout.flush()
    done = record.outcomes.values()
    asked = [outcome for outcome in done if outcome.fits]
    codes = collections.Counter(outcome.code for outcome in asked)
    names = {case.name for case in singles}
    alone = sum(1 for outcome in done if outcome.name in names)
    found = sum(1 for outcome in done if not outcome.allowed)
    sys.stdout.write(
        f"{len(ARTEFACTS)} artefacts, {len(STEPS)} transformations; {alone} of {len(singles)} alone and "
        f"{len(done) - alone} of {len(pairs)} in pairs, {len(asked)} asked; "
        f"exit codes {dict(sorted(codes.items()))}; {found} not allowed\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
