"""Turns: who waits for more queries, and that no wait is for ever, in a loop whose turns and time the test counts."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from clipper.abstraction.batching.dispatcher import Batch
from clipper.abstraction.batching.short_batches import MANY
from clipper.abstraction.turns import MAX_WAIT_S, Turns
from event_loops import ShiftedLoop, run_clean, turn_over
from works import make_work


class StillLoop(ShiftedLoop):
    """Its time is what the test says, and nothing else."""

    def time(self) -> float:
        return self.shift_s


def run(scenario: Coroutine[Any, Any, None]) -> None:
    run_clean(scenario, StillLoop)


class Queue:
    """Takes its turn by noting it."""

    def __init__(self, *, gains: bool = True, slo_s: float = 1.0) -> None:
        self.slo_s = slo_s
        self.turns = 0
        self._gains = gains

    def gains_by_more(self) -> bool:
        return self._gains

    def take_due_turn(self) -> None:
        self.turns += 1


def ask(turns: Turns, queue: Queue) -> None:
    turns.arrivals += 1
    turns.await_end(queue)


async def keep_asking(turns: Turns, rounds: int) -> None:
    for _ in range(rounds):
        turns.arrivals += 1
        await turn_over(1)


def test_a_query_that_comes_alone_goes_at_the_end_of_the_turn() -> None:
    async def scenario() -> None:
        turns, queue = Turns(), Queue()
        ask(turns, queue)
        assert queue.turns == 0
        await turn_over(1)
        assert queue.turns == 1

    run(scenario())


def test_while_queries_come_for_any_model_those_wait_that_gain_by_more() -> None:
    async def scenario() -> None:
        turns, gains, does_not = Turns(), Queue(), Queue(gains=False)
        ask(turns, gains)
        ask(turns, does_not)
        await keep_asking(turns, 5)
        assert (gains.turns, does_not.turns) == (0, 1)
        await turn_over(1)
        await turn_over(1)
        assert (gains.turns, does_not.turns) == (1, 1)

    run(scenario())


def test_nobody_waits_for_longer_than_the_bound_or_a_part_of_the_slo() -> None:
    async def scenario() -> None:
        turns, patient, urgent = Turns(), Queue(), Queue(slo_s=0.001)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        ask(turns, patient)
        ask(turns, urgent)
        await keep_asking(turns, 3)
        loop.advance(0.0002)
        await keep_asking(turns, 2)
        assert (patient.turns, urgent.turns) == (0, 1)
        loop.advance(MAX_WAIT_S)
        await keep_asking(turns, 2)
        assert (patient.turns, urgent.turns) == (1, 1)

    run(scenario())


def send(turns: Turns, rows: int, *, is_short: bool = True) -> Batch:
    batch = Batch(1, [make_work(b"")] * rows, turns_time(), was_full=False, is_short=is_short)
    turns.sent(batch)
    return batch


def turns_time() -> float:
    return asyncio.get_running_loop().time()


def test_answers_that_will_bring_more_queries_are_waited_for() -> None:
    async def scenario() -> None:
        turns, queue = Turns(), Queue()
        batches = [send(turns, MANY), send(turns, MANY)]
        ask(turns, queue)
        await turn_over()
        assert queue.turns == 0
        turns.ended(batches[0])
        await turn_over()
        assert queue.turns == 1

    run(scenario())


def test_few_queries_long_batches_and_those_that_hang_are_not_waited_for() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        few, long, hanging = Turns(), Turns(), Turns()
        for turns, rows, is_short in ((few, 1, True), (long, MANY, False), (hanging, MANY, True)):
            late = [send(turns, rows, is_short=is_short) for _ in range(2)]
            loop.advance(2 * MAX_WAIT_S if turns is hanging else 0.0)
            queue = Queue()
            ask(turns, queue)
            await turn_over()
            assert queue.turns == 1
            for batch in late:
                turns.ended(batch)
        batches = [send(hanging, MANY), send(hanging, MANY)]
        queue = Queue()
        ask(hanging, queue)
        await turn_over()
        assert queue.turns == 0, "those that hung are forgotten, and nothing else"
        hanging.ended(batches[0])

    run(scenario())


def test_answers_that_do_not_come_are_waited_for_no_longer_than_the_bound() -> None:
    async def scenario() -> None:
        turns, queue = Turns(), Queue()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        ask(turns, queue)
        send(turns, MANY)
        send(turns, MANY)
        await turn_over()
        assert queue.turns == 0
        loop.advance(MAX_WAIT_S)
        await turn_over()
        assert queue.turns == 1

    run(scenario())


def test_turns_are_idle_while_nobody_waits_and_no_short_batch_is_out() -> None:
    async def scenario() -> None:
        turns = Turns()
        assert turns.are_idle
        ask(turns, Queue())
        assert not turns.are_idle
        await turn_over(1)
        assert turns.are_idle
        long, short = send(turns, 1, is_short=False), send(turns, 1)
        assert not turns.are_idle
        turns.ended(short)
        assert turns.are_idle
        turns.ended(long)

    run(scenario())
