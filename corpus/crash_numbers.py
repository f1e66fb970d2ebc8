# SPDX-License-Identifier: GPL-2.0-or-later
"""`make crash-numbers`: what the fixtures say of the reader, as tables: dresses, damages, confidence, blame.

Prints Markdown; `--write` puts it into docs/crash-numbers.md.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from ejectable.advisories import choose
from ejectable.assess.crashes import judge
from ejectable.crash.logs import read_bytes
from ejectable.errors import EjectableError
from ejectable.model import SAFE, Event, Judgement, Status, worst
from ejectable.report.crash import confidence_word
from tests.attack.logs import DAMAGES, DRESSES, apply
from tests.crash.fixtures import FIXTURES, Fixture, load

__all__ = ["blame", "calibration", "dresses", "judged"]

OUTPUT = Path(__file__).parents[1] / "docs" / "crash-numbers.md"
SEEDS = 3
# Dresses in which the fixtures of other crashes are read as well, to see whether the blame holds.
WORN = ("as it is", "quoted", "csv", "html", "screen", "json field", "whatsapp", "python list")
HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-or-later -->
# The numbers of `crash`

Made by `make crash-numbers` from the fixtures in `tests/crash/fixtures`. Not by hand.
"""


def judged(data: bytes) -> list[tuple[Event, Judgement]] | None:
    """The events of a log with what is said of each; `None` where it is refused."""
    try:
        events = read_bytes(data, "log").events
    except EjectableError:
        return None
    return [(event, judge(event, choose(()), events)) for event in events]


def plain() -> list[Fixture]:
    """The fixtures that are a log as the kernel prints it: stamps, or nothing, in front of the lines."""
    found = [load(path) for path in FIXTURES]
    return [one for one in found if one.log.lstrip()[:1] in (b"[", b"B", b"<") and b"\0" not in one.log]


def is_defect(fixture: Fixture) -> bool:
    """Whether its header says that it is an advisory's crash."""
    return any(event.fields.get("advisory", "none") != "none" for event in fixture.events)


def _complete() -> list[Fixture]:
    return [one for one in plain() if is_defect(one) and "cut" not in one.name and one.log[:1] == b"["]


def dresses() -> tuple[int, int, list[str]]:
    """How many logs of a defect were read in a dress, how many with the full verdict, and what was called safe."""
    total = full = 0
    safe = []
    for fixture in _complete():
        for name in DRESSES:
            found = judged(apply(name, fixture.log.decode("utf-8", "replace"), 1))
            word = None if found is None else worst([said.status for _, said in found] or [Status.NOT_AFFECTED])
            total += 1
            full += word is Status.AFFECTED
            if word in SAFE:
                safe.append(f"{fixture.name} in {name}")
    return total, full, safe


def _damaged() -> Iterator[tuple[bool, Event, Judgement]]:
    """The events of all fixtures, whole and damaged, and whether the fixture is a defect's crash."""
    for fixture in plain():
        texts = [fixture.log]
        text = fixture.log.decode("utf-8", "replace")
        texts += [apply(name, text, seed) for name in DAMAGES for seed in range(SEEDS)]
        for data in texts:
            for event, said in judged(data) or ():
                yield is_defect(fixture), event, said


def calibration() -> dict[str, tuple[int, int, float]]:
    """For each word of confidence: the events called a defect's crash, how many are, the mean of the numbers."""
    counted: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for true, _event, said in _damaged():
        if said.status is Status.AFFECTED:
            counted[confidence_word(said.confidence)].append((true, said.confidence))
    return {
        word: (len(found), sum(true for true, _ in found), sum(number for _, number in found) / len(found))
        for word, found in counted.items()
    }


def blame() -> dict[str, tuple[int, int]]:
    """For each kind of event: how many the fixtures expect, plain and dressed, and how many are blamed right."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for fixture in plain():
        expected = [one for one in fixture.events if one.fields.get("function", "none") != "none"]
        for name in WORN if expected else ():
            found = judged(apply(name, fixture.log.decode("utf-8", "replace"), 1)) or []
            functions = Counter((str(event.kind), event.function) for event, _ in found)
            for one in expected:
                kind = one.fields.get("kind", "?")
                total[kind] += 1
                if (key := (kind, one.fields["function"])) in functions:
                    right[kind] += 1
                    functions[key] -= 1
    return {kind: (count, right[kind]) for kind, count in sorted(total.items())}


def tables() -> str:
    """All of it as Markdown."""
    total, full, safe = dresses()
    rows = [HEAD, "## What people do to logs\n"]
    rows.append(
        f"{len(_complete())} complete logs of a defect in {len(DRESSES)} dresses: {full} of {total} "
        f"({full / total:.1%}) with the full verdict, {len(safe)} called safe.\n"
    )
    rows += [f"- safe: {one}" for one in safe]
    rows.append("## What the words of confidence are worth\n")
    rows.append(
        f"Every fixture whole, and with each of {len(DAMAGES)} damages {SEEDS} times: the events that were called a "
        "defect's crash.\n"
    )
    rows += ["| word | events | are one | | mean of `confidence` |", "|---|---|---|---|---|"]
    found = calibration()
    for word in ("certain", "likely", "possible"):
        count, true, mean = found.get(word, (0, 0, 0.0))
        rows.append(f"| {word} | {count} | {true} | {true / count if count else 0:.1%} | {mean:.2f} |")
    rows.append("\n## Whom it blames\n")
    rows.append(f"Every fixture in {len(WORN)} dresses ({', '.join(WORN)}): the function that its header names.\n")
    rows += ["| kind | events | right | |", "|---|---|---|---|"]
    kinds = blame()
    for kind, (count, right) in kinds.items():
        rows.append(f"| {kind} | {count} | {right} | {right / count:.1%} |")
    count, right = (sum(column) for column in zip(*kinds.values(), strict=True))
    rows.append(f"| **all** | {count} | {right} | **{right / count:.1%}** |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Print the tables; 1 where a log of a defect was called safe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {OUTPUT.name}")
    options = parser.parse_args()
    text = tables()
    if options.write:
        OUTPUT.write_text(text, encoding="utf-8")
    print(text)
    return 1 if "\n- safe: " in text else 0


if __name__ == "__main__":
    sys.exit(main())
