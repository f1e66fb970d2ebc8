# SPDX-License-Identifier: GPL-2.0-or-later
"""Work handed to confined children: one answer, a stream of them, or many pieces of work shared among several."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from ejectable.confine.child import confined, error_of
from ejectable.confine.imports import TRY, Absent, bring_in
from ejectable.confine.process import Process, step
from ejectable.confine.wire import Answer, Fence, Outside, decoded
from ejectable.errors import EjectableError, Ended

__all__ = ["Done", "run", "share", "stream"]

T = TypeVar("T")
# Each start brings in one more module that the work turned out to need.
MOST_STARTS = 64
MOST_SHARED = 128 << 20  # bytes that all answers of shared work may have


def run(work: Callable[[], T], *, into: Any, outside: Outside | None = None, fence: Fence | None = None) -> T:
    """What `work` returns, done in a confined child; `into` is its type. In a confined child it is just called.

    `outside` holds what the work may `ask` for. Raises what the work raises of `EjectableError`, and
    `Ended` where the child died, ran out of memory or time, or answered nonsense.
    """
    if confined():
        return work()
    found: list[T] = list(stream(lambda: (work(),), into=into, outside=outside, fence=fence))
    if len(found) != 1:
        raise Ended(f"The confined process gave no proper answer ({len(found)} values).", hint=TRY)
    return found[0]


def stream(
    work: Callable[[], Iterable[T]],
    *,
    into: Any,
    outside: Outside | None = None,
    fence: Fence | None = None,
    again: bool = True,
) -> Iterator[T]:
    """Each thing that `work` gives, as it comes; raises as `run` does.

    Where a module must be loaded first, the work begins again and what was given already is passed over; `again` says
    whether it can: what was read from a pipe is gone.
    """
    if confined():
        yield from work()
        return
    absent = Absent()
    given = 0
    for _ in range(MOST_STARTS):
        process = Process(work, outside=outside or {}, fence=fence or Fence(), absent=absent)
        ended: Ended | None = None
        needs: str | None = None
        skip = given
        try:
            for answer in _answers_of(process):
                if answer is None or answer.end or answer.needs is not None:
                    needs = answer.needs if answer else None
                    break
                if answer.error is not None:
                    raise error_of(answer.error, answer.message, answer.hint)
                if skip:
                    skip -= 1
                    continue
                given += 1
                yield _value(answer, into)
        finally:
            ended = process.end()
        if answer is None:
            raise ended
        if needs is None:
            return
        if not again:
            raise Ended(f"The confined process lacks {needs}, which was not loaded before.", hint=TRY)
        bring_in(needs, absent)
    raise Ended("The confined process asked for one module after the other.", hint=TRY)


def _answers_of(process: Process) -> Iterator[Answer | None]:
    """Its answers as they come; `None` where it dies or takes too long."""
    while True:
        for _, answers in step([process]):
            yield from answers
            if not answers or process.over:
                yield None


def _value(answer: Answer, into: Any) -> Any:
    try:
        return decoded(answer, into)
    except ValueError as error:
        raise Ended(f"The confined process gave no proper answer ({error}).", hint=TRY) from error


class Done(msgspec.Struct, Generic[T]):
    """What came of one piece of shared work: what it gave, and what it raised, or how its process ended."""

    given: list[T]
    error: EjectableError | None = None


def share(
    work: Callable[[int], Iterable[T]],
    count: int,
    *,
    jobs: int,
    into: Any,
    outside: Outside | None = None,
    fence: Callable[[int], Fence],
    again: Callable[[int], bool],
) -> Iterator[Done[T]]:
    """What comes of each of `count` pieces of work, in order; `work` gets a number from 0.

    Up to `jobs` children take one after the other. One that dies takes what it was at with it, and another goes on
    behind it. `fence` tells the fence of a piece: of a child that has many, that of its first; the clock starts anew
    with each. `again` tells whether a piece can begin again, where it turns out to need a library.
    """
    if confined():
        for number in range(count):
            yield _here(work, number)
        return
    shared = _Shared(work, count, into, outside or {}, fence, again)
    try:
        for number in range(count):
            while number not in shared.done:
                shared.advance(min(jobs, count))
            yield shared.done.pop(number)
    finally:
        shared.end()


def _here(work: Callable[[int], Iterable[T]], number: int) -> Done[T]:
    done: Done[T] = Done([])
    try:
        for value in work(number):
            done.given.append(value)
    except EjectableError as error:
        done.error = error
    return done


class _Worker:
    """A child, what it is at, and what that gave so far."""

    def __init__(self) -> None:
        self.process: Process
        self.number: int | None = None
        self.given: list[Any] = []


class _Shared(Generic[T]):
    """Pieces of work, the children that do them, and what came of it."""

    def __init__(  # noqa: PLR0917  (called once)
        self,
        work: Callable[[int], Iterable[T]],
        count: int,
        into: Any,
        outside: Outside,
        fence: Callable[[int], Fence],
        again: Callable[[int], bool],
    ) -> None:
        self._may_begin_again = again
        self.done: dict[int, Done[T]] = {}
        self._work = work
        self._into = into
        self._outside = outside
        self._fence = fence
        self._waiting = list(range(count - 1, -1, -1))  # the next one last
        self._starts: dict[int, int] = {}
        self._workers: list[_Worker] = []
        self._absent = Absent()
        self._heard = 0

    def advance(self, jobs: int) -> None:
        """Start what is to be started, wait until something comes, and take it."""
        while self._waiting and len(self._workers) < jobs and len(self._workers) < len(self._waiting) + 1:
            if not self._start():
                return
        for process, answers in step([worker.process for worker in self._workers]):
            worker = next(worker for worker in self._workers if worker.process is process)
            if self._takes(worker, answers):
                self._leave(worker)
        if self._heard > MOST_SHARED:
            self._stop()

    def end(self) -> None:
        """Leave nobody behind."""
        for worker in self._workers:
            worker.process.end()
        self._workers.clear()

    def _start(self) -> bool:
        """Start one more child; where none can be started, that is what came of the next piece."""
        worker = _Worker()
        first = self._waiting[-1]

        def pieces() -> Iterator[T]:
            from ejectable.confine.child import ask

            while (number := ask("next")) is not False:
                yield from self._work(int(number))

        outside: Outside = {**self._outside, "next": lambda: self._next(worker)}
        try:
            worker.process = Process(pieces, outside=outside, fence=self._fence(first), absent=self._absent)
        except Ended as ended:
            self.done[self._waiting.pop()] = Done([], ended)
            return False
        self._workers.append(worker)
        return True

    def _next(self, worker: _Worker) -> str | bool:
        """The number of the next piece, for a child that is ready for it."""
        self._takes(worker, worker.process.hear())  # it was written before this was asked for
        if worker.number is not None:
            self.done[worker.number] = Done(worker.given)
        worker.number, worker.given = None, []
        if not self._waiting or self._heard > MOST_SHARED:
            return False
        worker.number = self._waiting.pop()
        worker.process.left = self._fence(worker.number).seconds
        return str(worker.number)

    def _takes(self, worker: _Worker, answers: list[Answer]) -> bool:
        """Take what a child gave; whether it has come to its end."""
        for answer in answers:
            self._heard += len(answer.value)
            if self._heard > MOST_SHARED:
                return False
            if answer.end:
                worker.number = None
                return True
            if answer.needs is not None and worker.number is not None:
                self._again(worker, answer.needs)
                return True
            if answer.error is not None:
                self._ends(worker, error_of(answer.error, answer.message, answer.hint))
                return True
            try:
                worker.given.append(_value(answer, self._into))
            except Ended as ended:
                self._ends(worker, ended)
                return True
        return not answers or worker.process.over

    def _again(self, worker: _Worker, needs: str) -> None:
        """Begin a piece again, which needs a module that is not loaded."""
        assert worker.number is not None
        number, worker.number = worker.number, None
        self._starts[number] = self._starts.get(number, 0) + 1
        if self._starts[number] > MOST_STARTS or not self._may_begin_again(number):
            why = f"The confined process lacks {needs}, which could not be loaded in time."
            self.done[number] = Done(worker.given, Ended(why, hint=TRY))
            return
        try:
            bring_in(needs, self._absent)
        except Ended as ended:
            self.done[number] = Done([], ended)
            return
        self._waiting.append(number)

    def _ends(self, worker: _Worker, error: EjectableError) -> None:
        """A piece came to a bad end; what it gave before is kept."""
        number = worker.number if worker.number is not None else (self._waiting.pop() if self._waiting else None)
        worker.number = None
        if number is not None:
            self.done[number] = Done(worker.given, error)

    def _leave(self, worker: _Worker) -> None:
        """Clear up behind a child that is at its end."""
        self._workers.remove(worker)
        ended = worker.process.end()
        if worker.number is not None:
            self._ends(worker, ended)

    def _stop(self) -> None:
        """Too much came: what is not done is not done."""
        too_much = Ended(
            f"More than {MOST_SHARED >> 20} MiB of answers came; the rest was not read.", hint="Name less."
        )
        for worker in self._workers:
            if worker.number is not None:
                self.done[worker.number] = Done(worker.given, too_much)
        for number in self._waiting:
            self.done[number] = Done([], too_much)
        self._waiting.clear()
        self.end()
