import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from clipper.turn_budget import VISIT_S, TurnBudget
from clipper.worker.slices import Slices
from event_loops import run_clean, turn_over


class Clock:
    """Each step takes half a visit."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def turn_of(clock: Clock) -> TurnBudget:
    return TurnBudget(asyncio.get_running_loop().call_soon, clock)


def steps(clock: Clock, done: list[str], name: str, count: int) -> Iterator[None]:
    for number in range(count):
        clock.now_s += VISIT_S / 2
        done.append(f"{name}{number}")
        yield


def test_a_turn_has_one_visit_however_many_lists_there_are() -> None:
    async def scenario() -> None:
        clock, done = Clock(), list[str]()
        slices = Slices(lambda: True, turn_of(clock))
        futures = [slices.do(steps(clock, done, name, 6)) for name in "abc"]
        seen = []
        while not all(future.done() for future in futures):
            seen.append(len(done))
            await asyncio.sleep(0)
        assert seen[0] == 2 and all(later - earlier <= 2 for earlier, later in pairwise(seen))
        # In turns: the last does not wait for all of the first.
        assert done.index("c0") < done.index("a5") and len(done) == 18
        await turn_over()

    run_clean(scenario())


def test_small_lists_are_done_at_once_while_the_turn_has_time() -> None:
    async def scenario() -> None:
        clock, done = Clock(), list[str]()
        slices = Slices(lambda: True, turn_of(clock))
        assert all(slices.do(steps(clock, done, name, 0)).done() for name in "abcd")
        large, small = slices.do(steps(clock, done, "a", 6)), slices.do(steps(clock, done, "b", 0))
        assert not large.done() and not small.done()
        await small
        await large
        await turn_over()

    run_clean(scenario())


def test_without_room_lists_wait_until_there_is_some() -> None:
    async def scenario() -> None:
        clock, done, room = Clock(), list[str](), [1]

        def has_room() -> bool:
            return len(done) < room[0]

        slices = Slices(has_room, turn_of(clock))
        future = slices.do(steps(clock, done, "a", 2))
        await turn_over(10)
        assert done == ["a0"]
        room[0] = 5
        slices.resume()
        await future
        assert done == ["a0", "a1"]
        slices.resume()
        await turn_over()

    run_clean(scenario())


def test_who_waits_gets_the_failure_and_who_is_cancelled_does_no_more() -> None:
    async def scenario() -> None:
        clock, done = Clock(), list[str]()

        def fails() -> Iterator[None]:
            yield
            raise ValueError("broken")

        slices = Slices(lambda: True, turn_of(clock))
        cancelled = slices.do(steps(clock, done, "a", 9))
        failing, last = slices.do(fails()), slices.do(steps(clock, done, "b", 1))
        cancelled.cancel()
        with pytest.raises(ValueError, match="broken"):
            await failing
        await last
        assert done == ["a0", "a1", "b0"]
        await turn_over()

    run_clean(scenario())
