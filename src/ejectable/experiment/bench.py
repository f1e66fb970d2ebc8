# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench: scenes on one program, and the verdict that a pair of runs gives.

An experiment says what was seen where the defect is (`affected`), what is seen where it is not (`fixed`), and what must
be seen in a run beside it on every kernel (`control`). Only one of the first two may be true, and the control must be;
anything else is `unknown`: the experiment and this kernel do not fit.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from ejectable.experiment.observations import Observation
from ejectable.experiment.scene import Scene
from ejectable.kernel.machine import Bounds, Outcome, Stub
from ejectable.kernel.program import Program, Types
from ejectable.model import Doubt, DoubtKind, Justification, Status, earned

__all__ = ["Bench", "Result"]

DEFAULT = Bounds()


class Result(msgspec.Struct, frozen=True):
    """What an experiment came to: the word, the sentence for it, the story of its runs, and what they left open."""

    says: Status
    detail: str
    story: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    functions: tuple[str, ...] = ()  # that were run, or whose answers decided
    claim: str | None = None  # what was seen, as one word that the advisory defines
    justification: Justification | None = None  # beside `not_affected`

    def __post_init__(self) -> None:
        """Refuse a safe word beside a doubt."""
        assert earned(self.says, self.doubts) is self.says, self.doubts


class Bench:
    """Scenes on one program. `find` gives other pieces of the same kernel by the function that they must have."""

    def __init__(
        self,
        program: Program,
        *,
        bounds: Bounds = DEFAULT,
        find: Callable[[str], Program | None] | None = None,
        types: Types | None = None,
    ) -> None:
        self.program = program
        self._types = types
        self.bounds = bounds
        self._find = find
        self._story: list[str] = []
        self._functions: dict[str, None] = {}
        self.runs: list[Outcome] = []  # that were decided by

    def scene(
        self,
        *,
        follow: Sequence[str] = (),
        stubs: Mapping[str, Stub] | None = None,
        free: bool = False,
        program: Program | None = None,
        bounds: Bounds | None = None,
    ) -> Scene:
        """A fresh machine with nothing in it; see `Scene`. `bounds` are this scene's own."""
        return Scene(
            program or self.program,
            bounds=bounds or self.bounds,
            types=self._types,
            follow=follow,
            stubs=stubs,
            free=free,
        )

    def has(self, function: str) -> bool:
        """Whether the program has this function, and does not only call it."""
        found = self.program.symbols.function(function)
        return found is not None and found.kind != "U"

    def elsewhere(self, function: str) -> Program | None:
        """The piece of the same kernel that has this function; `None` if none has it."""
        return self._find(function) if self._find is not None else None

    def say(self, line: str) -> None:
        """Add a line to the story, which `kernel --explain` shows."""
        self._story.append(line)

    def unknown(self, detail: str, kind: DoubtKind = DoubtKind.UNPARSED) -> Result:
        """It cannot be decided: `detail` says why, in one sentence."""
        self.say(detail)
        doubt = Doubt(kind, self.program.name, detail)
        return Result(Status.UNKNOWN, detail, tuple(self._story), (doubt,), tuple(self._functions))

    def not_there(self, detail: str) -> Result:
        """The code that the defect is in is not in this kernel."""
        self.say(detail)
        return Result(Status.NOT_AFFECTED, detail, tuple(self._story), (), tuple(self._functions))

    def decide(
        self, *, affected: Observation, fixed: Observation, control: Observation | None = None, absent: bool = False
    ) -> Result:
        """The verdict of a pair of runs. With `absent`, what is not affected never had the faulty code."""
        for name, seen in (("affected", affected), ("fixed", fixed), ("control", control)):
            if seen is not None:
                self.say(f"{name}: {'yes' if seen else 'no'}: {seen.detail}.")
                self._functions.update(dict.fromkeys(outcome.function for outcome in seen.outcomes))
                self.runs += [outcome for outcome in seen.outcomes if outcome not in self.runs]
        if control is not None and not control:
            return self.unknown(f"the control run did not go as it must on every kernel: {control.detail}")
        if bool(affected) is bool(fixed):
            both = "both the defect and its absence were seen" if affected else "neither the defect nor its absence was"
            return self.unknown(f"{both} seen: {affected.detail}; {fixed.detail}".replace("seen seen", "seen"))
        if affected:
            return Result(Status.AFFECTED, affected.detail, tuple(self._story), (), tuple(self._functions))
        outcomes = [outcome for seen in (affected, fixed, control) if seen is not None for outcome in seen.outcomes]
        word = Status.NOT_AFFECTED if absent else Status.FIXED
        doubts = tuple(self._doubts(outcomes))
        return Result(earned(word, doubts), fixed.detail, tuple(self._story), doubts, tuple(self._functions))

    def _doubts(self, outcomes: Sequence[Outcome]) -> list[Doubt]:
        """What the runs did not show: a bound that was reached, and all that stands behind where a run broke off."""
        found = []
        for outcome in dict.fromkeys(outcomes):
            if outcome.bounds:
                bounds = ", ".join(outcome.bounds)
                found.append(
                    Doubt(DoubtKind.BOUND, outcome.function, f"The run came to a bound of the machine: {bounds}.")
                )
            if outcome.exit != "returned":
                found.append(Doubt(DoubtKind.UNPARSED, outcome.function, f"{outcome.story()}."))
        return found
