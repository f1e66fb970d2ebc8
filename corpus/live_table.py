# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of what was proven about `ejectable fix live`: docs/live-proof.md, from the results in the corpus' cache."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from corpus.archive import cache_folder
from ejectable.remedies.live.target import SOURCES, source

__all__ = ["WHOLE", "Result", "Row", "page", "source_state"]

WHOLE = "live-whole.jsonl"  # what each step of the whole story came to
HEAD = """<!-- Written by `make live-proof`: do not edit. -->
# What was proven about `ejectable fix live`

Every kernel below has the faulty callback. A row is one guest (QEMU, emulated): a legacy device is there, the module
is loaded, the device is unplugged, a new one is plugged and unplugged, the module is unloaded. Up to there the log has
no event, not even a warning. Then the same unplug happens once more, without the module.
"""


class Row(msgspec.Struct, frozen=True):
    """One guest. `cycles` is how often it loads, unplugs, plugs and unloads before the crash at the end is sought."""

    kernel: str
    machine: str
    device: str
    trigger: str
    mode: str = "legacy"
    cycles: int = 1

    @property
    def key(self) -> str:
        """What its result is kept under."""
        return " ".join(str(value) for value in msgspec.structs.astuple(self))


class Result(msgspec.Struct, frozen=True):
    """What a row came to. `unplugged` counts with the module loaded; `without` is what the unplug at the end did."""

    unplugged: int
    events: tuple[str, ...]  # of the log, before the module was unloaded for good: none is right
    without: str
    wrong: str  # what contradicts the claim, or nothing
    module: str = ""  # the state of the module's sources, as `source_state` gives it


class Step(msgspec.Struct, frozen=True):
    """One step of the whole story."""

    verdict: str
    step: str
    module: str = ""  # as in `Result`


def page(results: Sequence[tuple[Row, Result]], kernels: Mapping[str, str]) -> tuple[str, int]:
    """The page, and how many results contradict the claim."""
    wrong = sum(bool(result.wrong) for _, result in results)
    earlier = sum(result.module != source_state() for _, result in results)
    told = f"{len(results)} guests; results that contradict the claim: {wrong}."
    if earlier:
        told += f" {earlier} of them ran with an earlier state of the module's sources (marked *)."
    lines = [HEAD, told, ""]
    lines += ["## Each device, each trigger", ""]
    single = [(row, result) for row, result in results if row.cycles == 1]
    lines += _table(
        ("kernel", "machine", "trigger", "mode", "device", "unplugged with the module", "then without it"),
        [
            (f"{row.kernel} ({kernels[row.kernel]})", row.machine, row.trigger, row.mode, row.device, *_words(result))
            for row, result in single
        ],
    )
    lines += ["", "## Again and again", "", "Load, unplug, plug, unload: so many times in one guest.", ""]
    many = [(row, result) for row, result in results if row.cycles > 1]
    lines += _table(
        ("kernel", "cycles", "unplugged with the module", "then without it"),
        [(f"{row.kernel} ({kernels[row.kernel]})", str(row.cycles), *_words(result)) for row, result in many],
    )
    steps, bad = _whole()
    return "\n".join([*lines, *steps, ""]), wrong + bad


def source_state() -> str:
    """A value for the module's sources as they are now."""
    return hashlib.sha256(b"".join(source(name) for name in SOURCES)).hexdigest()[:16]


def _words(result: Result) -> tuple[str, str]:
    mark = "" if result.module == source_state() else " *"
    if result.wrong:
        return f"**{result.unplugged}**{mark}", f"**{result.wrong}**"
    return f"{result.unplugged}{mark}", result.without


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(line)} |" for line in body)]


def _whole() -> tuple[list[str], int]:
    """The whole story, step by step, where it was told."""
    kept = cache_folder() / WHOLE
    if not kept.exists():
        return [], 0
    steps = [msgspec.json.decode(line, type=Step) for line in kept.read_text(encoding="utf-8").splitlines()]
    bad = sum(step.verdict == "FAILED" for step in steps)
    earlier = any(step.module != source_state() for step in steps)
    lines = [
        "",
        "## The whole story",
        "",
        "`ejectable` in a guest with Debian 12, systemd, a compiler and DKMS (`make live-whole`); each step with",
        f"the exit code that it had. Steps that went wrong: {bad}."
        + (" It was told with an earlier state of the module's sources." if earlier else ""),
        "",
        *_table(("", "step"), [(step.verdict, step.step.replace("|", "/")) for step in steps]),
    ]
    return lines, bad
