# SPDX-License-Identifier: GPL-2.0-or-later
"""Work given to confined children piece by piece: in order, past the death of one, each answer where it belongs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ejectable.confine import Done, Fence, ask, confined, run, share, stream
from ejectable.errors import BadInput, Ended, OurFault

SOURCES = Path(__file__).parents[2] / "src"


def shared(work: Callable[[int], Iterator[int]], count: int, jobs: int, fence: Fence | None = None) -> list[Done[int]]:
    return list(
        share(work, count, jobs=jobs, into=int, fence=lambda _number: fence or Fence(), again=lambda _number: True)
    )


def test_what_is_given_comes_before_the_work_is_done() -> None:
    def work() -> Iterator[float]:
        yield time.monotonic()
        time.sleep(3)
        yield time.monotonic()

    given = stream(work, into=float)
    assert time.monotonic() - next(given) < 2
    assert len(list(given)) == 1


def test_who_needs_no_more_leaves_no_process_behind() -> None:
    def work() -> Iterator[int]:
        yield os.getpid()
        time.sleep(60)

    given = stream(work, into=int)
    child = next(given)
    given.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("jobs", [1, 3])
def test_pieces_come_in_order_and_belong_together(jobs: int) -> None:
    def work(number: int) -> Iterator[int]:
        time.sleep(0.001 * (number * 7 % 5))
        yield from range(number, number + number % 4)

    assert [one.given for one in shared(work, 60, jobs)] == [list(range(n, n + n % 4)) for n in range(60)]


def test_many_pieces_have_one_child_each_keeps_its_own() -> None:
    def work(_number: int) -> Iterator[int]:
        yield os.getpid()

    assert len({one.given[0] for one in shared(work, 200, 1)}) == 1
    assert os.getpid() not in {one.given[0] for one in shared(work, 4, 4)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_death_costs_one_piece(jobs: int) -> None:
    def work(number: int) -> Iterator[int]:
        yield number
        if number % 3 == 1:
            os.abort()
        yield number

    for number, one in enumerate(shared(work, 12, jobs)):
        if number % 3 == 1:
            assert one.given == [number]
            assert isinstance(one.error, Ended)
        else:
            assert (one.given, one.error) == ([number, number], None)


def test_an_error_and_a_bug_belong_to_their_piece() -> None:
    def work(number: int) -> Iterator[int]:
        if number == 1:
            raise BadInput("no number")
        yield 1 // (2 - number)

    first, second, third, fourth = shared(work, 4, 1)
    assert (first.error, fourth.error) == (None, None)
    assert isinstance(second.error, BadInput)
    assert isinstance(third.error, OurFault)


def test_a_piece_that_takes_too_long_is_stopped_and_the_clock_starts_anew_with_each() -> None:
    def work(number: int) -> Iterator[int]:
        time.sleep(60 if number == 1 else 0.6)
        yield number

    one, two, three = shared(work, 3, 1, Fence(seconds=1))
    assert (one.given, three.given) == ([0], [2])
    assert "stopped after 1 seconds" in str(two.error)


def test_who_gives_signs_of_life_may_take_its_time() -> None:
    def work() -> Iterator[int]:
        for _ in range(6):
            time.sleep(0.4)
            ask("alive")
        yield 1

    assert list(stream(work, into=int, fence=Fence(seconds=1.5))) == [1]


def test_answers_are_bounded_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Ended, match="more than 1 MiB at once"):
        run(lambda: b"x" * (2 << 20), into=bytes, fence=Fence(answer=1 << 20))
    monkeypatch.setattr("ejectable.confine.work.MOST_SHARED", 1000)

    def work(_number: int) -> Iterator[int]:
        for _ in range(100):
            yield 1 << 40

    found = shared(work, 40, 2)
    assert found[0].error is None
    assert isinstance(found[-1].error, Ended)
    assert sum(len(one.given) for one in found) <= 200


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\0\0\0\x05nonsense", b"\0\0\0\x01\xc1" * 9])
def test_nonsense_in_the_pipe_is_no_answer(nonsense: bytes) -> None:
    def work() -> int:
        for descriptor in range(3, 40):
            try:
                os.write(descriptor, nonsense)
            except OSError:
                continue
        return 1

    with pytest.raises(Ended):
        run(work, into=int)


def test_lone_surrogates_come_back_as_they_are() -> None:
    text = "\udcff\ud83d\udc00 plain"
    assert run(lambda: [text], into=list[str]) == [text]


def test_pure_python_is_handed_over_and_libraries_are_loaded_before() -> None:
    script = (
        "import sys\nfrom ejectable.confine import run, stream\n"
        "def late():\n    yield 1\n    import colorsys, wave\n    yield colorsys.rgb_to_hsv(0, 0, 1)[2]\n"
        "def library():\n    yield 1\n    import lzallright\n    yield 2\n"
        "assert not {'colorsys', 'lzallright'} & set(sys.modules)\n"
        "print(list(stream(late, into=float, again=False)), 'colorsys' in sys.modules)\n"
        "print(list(stream(library, into=int)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SOURCES)},
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (["[1.0, 1.0] False", "[1, 2]"], "")


def test_in_a_confined_process_it_is_just_done() -> None:
    def nested() -> bool:
        pids = {one.given[0] for one in shared(lambda _number: iter((os.getpid(),)), 3, 2)}
        return confined() and pids == {os.getpid()}

    assert run(nested, into=bool)


def test_threads_may_be_started_where_it_is_said_so_and_no_process() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def work() -> list[int]:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(abs, range(-3, 0)))

    assert run(work, into=list[int], fence=Fence(threads=True)) == [3, 2, 1]
    with pytest.raises(OurFault, match="start new thread"):
        run(work, into=list[int])

    def forks() -> str:
        try:
            os.fork()
        except PermissionError:
            return "refused"
        return "it could"

    assert run(forks, into=str, fence=Fence(threads=True)) == "refused"
