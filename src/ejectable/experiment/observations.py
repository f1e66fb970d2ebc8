# SPDX-License-Identifier: GPL-2.0-or-later
"""What one looks for in a run: a null pointer that is read, a call that is made, a loop without end.

Each function gives an `Observation`: true or false, with a sentence that says what was or was not seen. None of them
says what it means for a kernel; the advisory does.
"""

from collections.abc import Callable, Iterable

import msgspec

from ejectable.kernel.machine import Call, Outcome

__all__ = [
    "NEAR_NULL",
    "Observation",
    "calls",
    "calls_before",
    "ends",
    "reads_null",
    "spins",
    "state",
    "traps",
    "warns",
    "wild_access",
]

NEAR_NULL = 0x1000  # a member of an object at NULL; the kernel maps nothing there (mmap_min_addr)
LEAST_ROUNDS = 8  # after which a loop that changed nothing is taken for endless


class Observation(msgspec.Struct, frozen=True):
    """Whether something was seen in a run, the sentence that says so, and the runs that it was looked for in."""

    seen: bool
    detail: str
    outcomes: tuple[Outcome, ...] = ()

    def __bool__(self) -> bool:
        """Whether it was seen."""
        return self.seen

    def __and__(self, other: "Observation") -> "Observation":
        """Both; the sentence is that of the one that was not seen, where there is one."""
        both = (*self.outcomes, *other.outcomes)
        if self.seen and other.seen:
            return Observation(True, f"{self.detail}; {other.detail}", both)
        return Observation(False, (other if self.seen else self).detail, both)

    def __or__(self, other: "Observation") -> "Observation":
        """Either; the sentence is that of the first that was seen."""
        both = (*self.outcomes, *other.outcomes)
        return Observation(self.seen or other.seen, (other if other.seen and not self.seen else self).detail, both)

    def __invert__(self) -> "Observation":
        """The contrary, with the same sentence."""
        return Observation(not self.seen, self.detail, self.outcomes)


def ends(outcome: Outcome) -> Observation:
    """The function returned."""
    return Observation(outcome.exit == "returned", outcome.story(), (outcome,))


def reads_null(outcome: Outcome, *, at: int | None = None) -> Observation:
    """A member of an object at NULL was read, written or called; `at` is the member's offset, any if it is `None`."""
    fault = outcome.fault
    near = fault is not None and fault.address < NEAR_NULL and at in (None, fault.address)
    return Observation(near, outcome.story(), (outcome,))


def wild_access(outcome: Outcome) -> Observation:
    """An address was used that no object of the experiment holds."""
    return Observation(outcome.fault is not None, outcome.story(), (outcome,))


def traps(outcome: Outcome) -> Observation:
    """The kernel stopped itself: BUG(), a failed check of kCFI or of the stack."""
    return Observation(outcome.trap is not None, outcome.story(), (outcome,))


def warns(outcome: Outcome) -> Observation:
    """The kernel warned and went on: WARN(), or a report of a corrupt list or reference count."""
    where = ", ".join(trap.at for trap in outcome.warnings[:3])
    return Observation(bool(outcome.warnings), f"it warned at {where}" if where else "it did not warn", (outcome,))


def calls(outcome: Outcome, *names: str, times: int | None = None, first: object = None) -> Observation:
    """One of these functions was called: `times` times, at least once if it is `None`.

    `first` is an object or address that its first argument must be.
    """
    found = [call for call in outcome.calls if call.name in names and _first(call, first)]
    enough = len(found) == times if times is not None else bool(found)
    count = {0: "was not called", 1: "was called once"}.get(len(found), f"was called {len(found)} times")
    at = f" (at {found[0].at})" if found else ""
    return Observation(enough, f"{' or '.join(f'{name}()' for name in names)} {count}{at}", (outcome,))


def calls_before(outcome: Outcome, one: Iterable[str], other: Iterable[str]) -> Observation:
    """The first call of one of the functions `one` comes before the first of one of `other`; both are called."""
    firsts = [
        next(((place, call) for place, call in enumerate(outcome.calls) if call.name in names), None)
        for names in (set(one), set(other))
    ]
    left, right = firsts
    if left is None or right is None:
        missing = "the first" if left is None else "the second"
        return Observation(False, f"{missing} of the two calls was not made", (outcome,))
    words = f"{left[1].name}() was called before {right[1].name}()"
    if left[0] > right[0]:
        words = f"{right[1].name}() was called before {left[1].name}()"
    return Observation(left[0] < right[0], words, (outcome,))


def state(outcome: Outcome, detail: str, holds: bool) -> Observation:
    """What a run left behind, read by the advisory itself: `detail` says what `holds` is about."""
    return Observation(holds, detail, (outcome,))


def spins(outcome: Outcome) -> Observation:
    """The function goes round in a circle that nothing in it changes: the same instructions, calls and answers.

    What waits for another processor or for a device never ends in the experiment either: `holds` what was laid out.
    """
    if outcome.exit != "budget":
        return Observation(False, outcome.story(), (outcome,))
    period = _period(outcome.trace)
    steady = period is not None and _steady(outcome.calls)
    names = list(dict.fromkeys(call.name for call in outcome.calls[-50:]))
    around = f", calling {', '.join(names[:3])}" if names else ""
    words = f"it went round a loop of {period} instructions without end{around}" if steady else outcome.story()
    return Observation(steady, words, (outcome,))


def _first(call: Call, wanted: object) -> bool:
    if wanted is None:
        return True
    address: Callable[[], int] = wanted.__index__  # type: ignore[attr-defined]  # an Object, or a number
    return call.arguments[0] == address()


def _period(trace: tuple[int, ...]) -> int | None:
    """The length of the circle that the last instructions go round in, at least eight times; `None` if none."""
    if not trace:
        return None
    last = trace[-1]
    places = [place for place in range(len(trace) - 2, -1, -1) if trace[place] == last]
    for place in places[:64]:
        period = len(trace) - 1 - place
        if period * LEAST_ROUNDS > len(trace):
            return None
        tail = trace[-period:]
        if all(trace[-period * (n + 1) : len(trace) - period * n] == tail for n in range(1, LEAST_ROUNDS)):
            return period
    return None


def _steady(made: tuple[Call, ...]) -> bool:
    """Whether the last calls repeat, answers included; true where the circle makes none."""
    tail = [(call.site, call.arguments, call.answer) for call in made[-512:]]
    if not tail:
        return True
    period = next((n for n in range(1, len(tail) // 2) if tail[-1 - n] == tail[-1]), None)
    return period is not None and all(tail[-1 - n] == tail[-1 - n % period] for n in range(min(len(tail), 4 * period)))
