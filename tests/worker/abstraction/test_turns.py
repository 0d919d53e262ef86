"""Turns: who waits for more queries, and that no wait is for ever, in a loop whose turns and time the test counts."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clipper.settings.server import TelemetrySettings
from clipper.values.types import ModelId
from clipper.worker.abstraction.batching.flow import MANY, MAX_OUT_S, Batch
from clipper.worker.abstraction.turns import Turns
from clipper.worker.telemetry.exporter import Exporter
from clipper.worker.telemetry.spans import Span
from clipper.worker.telemetry.trace_context import SpanContext
from clipper.worker.telemetry.watch import Watch
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.works import Waiting, make_work


class StillLoop(ShiftedLoop):
    """The test sets its time, and nothing else does."""

    def time(self) -> float:
        return self.shift_s


def run(scenario: Coroutine[Any, Any, None]) -> None:
    run_clean(scenario, StillLoop)


MAX_WAIT_S = 0.002
MODEL = ModelId("m", "1")


class Queue:
    """Takes its turn by noting it. It waits, as long as it gains by that, as a scheduler does."""

    def __init__(self, *, gains: bool = True, max_wait_s: float = MAX_WAIT_S) -> None:
        self.turns = 0
        self._gains = gains
        self._max_wait_s = max_wait_s
        self._since_s = turns_time()

    def flow_wait_until_s(self) -> float:
        return self._since_s + self._max_wait_s if self._gains else 0.0

    def take_due_turn(self) -> None:
        self.turns += 1


def ask(turns: Turns, queue: Queue) -> None:
    turns.flow.arrivals += 1
    turns.await_end(queue)


async def keep_asking(turns: Turns, rounds: int) -> None:
    for _ in range(rounds):
        turns.flow.arrivals += 1
        await turn_over(1)


def test_a_query_that_comes_alone_goes_at_the_end_of_the_turn() -> None:
    async def scenario() -> None:
        turns = Turns()
        queue = Queue()
        ask(turns, queue)
        assert queue.turns == 0
        await turn_over(1)
        assert queue.turns == 1

    run(scenario())


def test_a_bug_in_one_queues_turn_does_not_cost_the_others_theirs(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Queue):
        def take_due_turn(self) -> None:
            raise AttributeError("a bug")

    async def scenario() -> None:
        turns = Turns()
        broken, queue = Broken(gains=False), Queue(gains=False)
        ask(turns, broken)
        ask(turns, queue)
        await turn_over(1)
        assert queue.turns == 1
        assert not turns.waiting

    run(scenario())
    assert "a bug" in caplog.text


def test_ending_the_turn_before_the_loop_polls_gives_batches_out_once() -> None:
    async def scenario() -> None:
        turns = Turns()
        queue = Queue()
        turns.end()  # nothing waits
        ask(turns, queue)
        turns.end()
        assert queue.turns == 1
        await turn_over(2)
        assert queue.turns == 1

    run(scenario())


def test_while_queries_come_for_any_model_those_wait_that_gain_by_more() -> None:
    async def scenario() -> None:
        turns = Turns()
        gains, does_not = Queue(), Queue(gains=False)
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
        turns = Turns()
        patient, urgent = Queue(), Queue(max_wait_s=0.0001)
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
    batch = Batch(1, [make_work(b"")] * rows, turns_time(), 0.0, 0, was_full=False, is_short=is_short)
    turns.sent(MODEL, "m:1#1", batch)
    return batch


def turns_time() -> float:
    return asyncio.get_running_loop().time()


def test_answers_that_will_bring_more_queries_are_waited_for() -> None:
    async def scenario() -> None:
        turns = Turns()
        queue = Queue()
        batches = [send(turns, MANY), send(turns, MANY)]
        ask(turns, queue)
        await turn_over()
        assert queue.turns == 0
        turns.ended(MODEL, batches[0])
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
            loop.advance(2 * MAX_OUT_S if turns is hanging else 0.0)
            queue = Queue()
            ask(turns, queue)
            await turn_over()
            assert queue.turns == 1
            for batch in late:
                turns.ended(MODEL, batch)
        batches = [send(hanging, MANY), send(hanging, MANY)]
        queue = Queue()
        ask(hanging, queue)
        await turn_over()
        assert queue.turns == 0, "those that hung are forgotten, and nothing else"
        hanging.ended(MODEL, batches[0])

    run(scenario())


def test_answers_that_do_not_come_are_waited_for_no_longer_than_the_bound() -> None:
    async def scenario() -> None:
        turns = Turns()
        queue = Queue()
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


def test_turns_are_idle_while_nobody_waits() -> None:
    async def scenario() -> None:
        turns = Turns()
        assert not turns.waiting
        ask(turns, Queue())
        assert turns.waiting
        await turn_over(1)
        assert not turns.waiting

    run(scenario())


def test_a_queue_is_not_kept_waiting_by_the_timer_of_a_longer_one() -> None:
    async def scenario() -> None:
        turns = Turns()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        send(turns, MANY)
        send(turns, MANY)
        ask(turns, Queue())
        await turn_over()
        urgent = Queue(max_wait_s=0.0001)
        ask(turns, urgent)
        await turn_over()
        assert urgent.turns == 0
        loop.advance(0.0002)
        await turn_over()
        taken = urgent.turns
        loop.advance(MAX_WAIT_S)
        await turn_over()
        assert taken == 1

    run(scenario())


class Sender:
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        self.spans += spans

    def close(self) -> None: ...


def waiting(trace: int) -> Waiting:
    """A query that is traced."""
    waiter = Waiting()
    waiter.span = SpanContext(trace, trace)
    return waiter


def test_batches_of_traced_queries_are_told_of_and_of_those_that_join() -> None:
    sender = Sender()

    async def scenario() -> None:
        exporter = Exporter(sender)
        watch = Watch(TelemetrySettings(), Path(), 0, exporter, Random(1))
        turns = Turns(watch)
        first, other, lost = make_work(b""), make_work(b""), make_work(b"")
        first.waiters[:] = [waiting(1), Waiting()]
        lost.waiters[:] = [waiting(3)]
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        loop.advance(10.0)
        batches = [Batch(1, works, 10.0, 0.0, 0, was_full=False, is_short=False) for works in ([first, other], [lost])]
        turns.sent(MODEL, "m:1#1", batches[0])
        assert batches[0].note is None, "no traced query is in flight, so nobody looks for one"
        watch.traced_until_s = 20.0
        for batch in batches:
            turns.sent(MODEL, "m:1#1", batch)
        other.join(waiting(2))
        first.waiters[0] = Waiting()  # its query was answered meanwhile
        loop.advance(1.0)
        turns.ended(MODEL, batches[0], 250_000)
        turns.ended(MODEL, batches[1])
        exporter.close()

    run(scenario())
    by_name: dict[str, list[Span]] = {}
    for span in sender.spans:
        by_name.setdefault(span.name, []).append(span)
    assert [span.context.trace_id for span in by_name["queue m"]] == [1, 3]
    batch, lost = by_name["batch m"]
    assert [link.trace_id for link in batch.links] == [1, 2]
    assert (batch.start_s, batch.end_s, batch.attributes["clipper.batch_size"]) == (10.0, 11.0, 2)
    (compute,) = by_name["compute m"]
    assert compute.end_s - compute.start_s == 0.25
    assert lost.error == "no results came"
