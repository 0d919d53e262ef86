import asyncio
import itertools
import math
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from clipper.model.protocol.frames import HEADER_BYTES
from clipper.model.protocol.messages import decode_welcome, encode_welcome
from clipper.model.protocol.typed import encode_typed_results
from clipper.settings.version import Batching
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.output import TypedOutput
from clipper.values.types import DType, InputType
from clipper.worker.abstraction import results as results_module
from clipper.worker.abstraction.batching import scheduler as scheduler_module
from clipper.worker.abstraction.counts import MAX_MESSAGE_CHARACTERS
from clipper.worker.abstraction.notices import MAX_NOTIFIED
from tests.event_loops import turn_over
from tests.queue_bench import SLO_S, Bench, failure, outputs
from tests.small_container import SmallContainer
from tests.waiting import until_async


async def typed_container(bench: Bench) -> SmallContainer:
    """Start and link a container that speaks version 2."""
    container = await bench.start()
    container.greeting = encode_welcome(replace(decode_welcome((container.greeting or b"")[HEADER_BYTES:]), protocol=2))
    await bench.link(container)
    return container


def test_outputs_that_are_arrays(run: Callable[..., None]) -> None:
    form = OutputForm(DType.FLOAT32, (2,), DType.FLOAT64)

    async def scenario(bench: Bench) -> None:
        container = await typed_container(bench)
        waiters = [bench.ask(bytes([number]) * 8) for number in range(3)]
        await until_async(lambda: container.batches)
        batch = container.take()
        data = struct.pack("<6f", 1.1, 2, 3, math.inf, 5, 6)
        batch.caller.write(encode_typed_results(batch.id, 3, form, data, 5, {2: "no such user"}))
        await until_async(lambda: waiters[0].done and waiters[2].done)
        assert outputs(waiters[1]) == ["[3.0,null]"]  # infinity is a number of arrays, and none of JSON
        assert failure(waiters[2]) == ("model_error", "no such user")
        for answered in (waiters[0], bench.ask(bytes(8))):  # the second from the cache
            output = answered.output
            assert isinstance(output, TypedOutput) and output.data == data[:8]
            assert outputs(answered) == ["[1.100000023841858,2.0]"]
        statistics = bench.queue.statistics()
        assert (statistics.outputs, statistics.model_errors, statistics.cache_hits) == (2, 1, 1)
        assert bench.cache.statistics().size_bytes >= len(data[:8]) + len("[1.100000023841858,2.0]")

    run(scenario)


def test_a_batch_of_long_arrays_is_answered_over_turns(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "MAX_ELEMENTS", 7)
    form = OutputForm(DType.UINT8, (3,), DType.UINT8)

    async def scenario(bench: Bench) -> None:
        container = await typed_container(bench)
        waiters = [bench.ask(bytes([number]) * 8) for number in range(5)]
        await until_async(lambda: container.batches)
        batch = container.take()
        batch.caller.write(encode_typed_results(batch.id, 5, form, bytes(range(15))))
        counts: list[int] = []
        while not counts or counts[-1] < 5:
            counts.append(sum(waiter.done for waiter in waiters))
            await turn_over(1)
        assert sorted(set(counts) - {0}) == [2, 4, 5]
        assert outputs(*waiters)[::4] == ["[0,1,2]", "[12,13,14]"]
        assert bench.queue.statistics().outputs == 5

    run(scenario)


def test_where_queries_come_one_at_a_time_they_leave_at_once(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no answer of the container's, however late the test gives it, makes it a slow one.
    monkeypatch.setattr(scheduler_module, "SHORT_S", SLO_S)

    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        first = bench.ask(b"a" * 8)
        assert bench.queue.replica_statistics()[0].in_flight == 0, "others may be read in the same turn of the loop"
        await until_async(lambda: container.batches)
        container.take().answer([b"1"])
        await until_async(lambda: first.done)

        second = bench.ask(b"b" * 8)

        assert bench.queue.replica_statistics()[0].in_flight == 1
        await until_async(lambda: container.batches)
        container.take().answer([b"2"])
        await until_async(lambda: second.done)
        assert outputs(first, second) == ["1", "2"]

    run(scenario)


def test_miss_join_and_hit(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        first, equal, other = bench.ask(b"a" * 8), bench.ask(b"a" * 8), bench.ask(b"b" * 8)
        await until_async(lambda: container.batches)
        batch = container.take()
        assert batch.rows == [b"a" * 8, b"b" * 8]
        batch.answer([b"1", b"2"])
        await until_async(lambda: other.done)
        assert outputs(first, equal, other) == ["1", "1", "2"]
        assert outputs(bench.ask(b"a" * 8)) == ["1"]
        statistics = bench.queue.statistics()
        assert (statistics.cache_misses, statistics.cache_joins, statistics.cache_hits) == (2, 1, 1)
        assert (statistics.outputs, statistics.model_errors, statistics.queue_length) == (2, 0, 0)
        assert statistics.batch_size.sum == 2 and sum(statistics.queue_wait_s.counts) == 1
        assert sum(statistics.batch_latency_s.counts) == 1
        (replica,) = bench.queue.replica_statistics()
        assert (replica.state, replica.batch_limit, replica.in_flight, replica.batches) == ("linked", 8, 0, 1)
        assert (statistics.arrivals, statistics.rejected + statistics.expired, statistics.slo_s) == (2, 0, 1.0)
        # Of batches of 8: while one size only is known, a tenth of its time is taken to go by the row.
        assert statistics.rows_per_s == {replica.id: pytest.approx(8 / (1.3 * statistics.batch_latency_s.sum))}

    run(scenario)


def test_counts_of_the_cache_stay_where_it_is_empty(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        asked = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        assert bench.queue.statistics().cache_misses == 1
        # A failed output is not kept, so no entry is left.
        container.take().fail("it raised")
        await until_async(lambda: asked.done)
        assert bench.queue.statistics().cache_misses == 1

    run(scenario)


def test_background_work_is_done_and_a_prediction_joining_it_goes_first(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        bench.queue.set_slo(SLO_S)
        first = bench.ask(b"f" * 8)
        await until_async(lambda: container.batches)
        background = [bench.ask(bytes([number]) * 8, is_background=True) for number in range(20)]
        joined, prediction = bench.ask(bytes([15]) * 8), bench.ask(b"p" * 8)
        await turn_over(20)
        assert bench.queue.statistics().arrivals == 2, "queries of the background are not counted as load"
        container.take().answer([b"0"])
        await until_async(lambda: container.batches)
        batch = container.take()
        assert batch.rows[:2] == [bytes([15]) * 8, b"p" * 8]
        batch.answer([b"1"] * len(batch.rows))
        await until_async(lambda: first.done and joined.done and prediction.done and background[15].done)
        while not all(waiter.done for waiter in background):
            await until_async(lambda: container.batches)
            batch = container.take()
            batch.answer([b"1"] * len(batch.rows))
            await turn_over()

    run(scenario)


def test_without_a_cache_equal_inputs_run_each(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        first, second = bench.ask(b"a" * 8), bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        container.take().answer([b"1", b"2"])
        await until_async(lambda: second.done)
        assert outputs(first, second) == ["1", "2"]
        assert bench.queue.statistics().cache_misses == 0

    run(scenario, cache=False)


@pytest.mark.parametrize(
    "bad",
    [b"", b"NaN", b"{", b"1 2", b'"\xff"', b"[" * 100_000 + b"]" * 100_000, b"nul", b"\x00"],
    ids=["empty", "nan", "open", "two", "not-utf8", "deep", "word", "nul"],
)
def test_an_output_that_is_not_json_fails_alone(run: Callable[..., None], bad: bytes) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        good, broken, after = (bench.ask(bytes([number]) * 8) for number in range(3))
        await until_async(lambda: container.batches)
        container.take().answer([b'"\xc3\xa9"', bad, b"null"])
        await until_async(lambda: after.done)
        assert outputs(good, after) == ['"é"', "null"]
        code, message = failure(broken)
        assert code == "model_error" and "not JSON" in message
        assert bench.states() == ["linked"]
        assert bench.queue.statistics().model_errors == 1
        # It was not cached: the next one is asked again.
        again = bench.ask(bytes([1]) * 8)
        await until_async(lambda: container.batches)
        container.take().answer([b"5"])
        await until_async(lambda: again.done)
        assert outputs(again) == ["5"]

    run(scenario)


def test_failures_of_rows_of_batches_and_of_counts(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        rows = [bench.ask(bytes([number]) * 8) for number in range(2)]
        await until_async(lambda: container.batches)
        container.take().answer([b"1", b""], failures={1: "x" * 1000})
        await until_async(lambda: rows[1].done)
        assert outputs(rows[0]) == ["1"]
        assert failure(rows[1]) == ("model_error", "x" * MAX_MESSAGE_CHARACTERS)
        reading = bench.queue.statistics()
        assert (reading.model_errors, reading.last_error) == (1, "x" * MAX_MESSAGE_CHARACTERS)
        whole = bench.ask(b"w" * 8)
        await until_async(lambda: container.batches)
        container.take().fail("it raised")
        await until_async(lambda: whole.done)
        assert failure(whole) == ("model_error", "it raised")
        few = bench.ask(b"f" * 8)
        await until_async(lambda: container.batches)
        container.take().answer([b"1", b"2"])
        await until_async(lambda: few.done)
        assert failure(few) == ("model_error", "the container answered 2 outputs for 1 inputs")

    run(scenario)


def test_each_query_of_a_batch_with_failures_hears_once(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        rows = [bench.ask(bytes([number]) * 8) for number in range(4)]
        await until_async(lambda: container.batches)
        # One fails by its row, one by what was put out for it, and one has both.
        container.take().answer([b"1", b"NaN", b"", b"2"], failures={2: "raised"})
        await until_async(lambda: all(row.done for row in rows))
        assert outputs(rows[0], rows[3]) == ["1", "2"]
        assert [len(row.heard) for row in rows] == [1, 1, 1, 1]
        assert failure(rows[2]) == ("model_error", "raised")
        counts = bench.queue.statistics()
        assert (counts.outputs, counts.model_errors) == (2, 2)

    run(scenario)


def test_a_whole_queue_that_expires_is_told_in_several_turns_of_the_loop(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        bench.ask(b"first..." * 2)
        await until_async(lambda: container.batches)
        waiting = [bench.ask(b"waiting!" * 2 + number.to_bytes(8, "big")) for number in range(3 * MAX_NOTIFIED + 1)]
        bench.loop.advance(SLO_S)
        told: list[int] = []

        def look() -> None:  # once in each turn of the loop
            told.append(sum(each.done for each in waiting))
            if told[-1] < len(waiting):
                asyncio.get_running_loop().call_soon(look)

        look()
        container.take().answer([b"1"])  # so that it decides
        await until_async(lambda: told[-1] == len(waiting))
        steps = [after - before for before, after in itertools.pairwise(told)]
        assert sum(step > 0 for step in steps) >= 4 and max(steps) <= MAX_NOTIFIED
        assert {failure(each)[0] for each in waiting} == {"timeout"}

    run(scenario)


def test_an_answer_to_no_batch_changes_nothing(run: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        query = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        batch = container.take()
        batch.id += 1000
        batch.answer([b"7"])
        batch.id -= 1000
        batch.answer([b"1"])
        await until_async(lambda: query.done)
        assert outputs(query) == ["1"]

    run(scenario)
    assert "which it was not sent" in caplog.text


def test_a_full_queue_refuses_at_once(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.worker.abstraction.model_queue.MAX_QUEUE_LENGTH", 2)

    async def scenario(bench: Bench) -> None:
        bench.queue.set_replicas([(await bench.start()).replica])
        waiting = [bench.ask(bytes([number]) * 8, slo_s=20.0) for number in range(2)]
        refused = bench.ask(b"x" * 8)
        assert failure(refused) == ("overloaded", "the queue of digits:1 is full")
        assert bench.queue.statistics().rejected == 1
        # Once they are past their deadlines, they make room and are told.
        bench.loop.advance(40.0)
        accepted = bench.ask(b"x" * 8)
        assert [failure(waiter)[0] for waiter in waiting] == ["no_replica", "no_replica"]
        assert not accepted.done and bench.queue.statistics().expired == 2
        statistics = bench.queue.statistics()
        assert (statistics.arrivals, statistics.rejected + statistics.expired) == (4, 3)

    run(scenario)


def test_a_query_past_its_deadline_is_never_sent(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start(max_batch=1)
        await bench.link(container)
        sent = [bench.ask(bytes([number]) * 8) for number in range(2)]
        await until_async(lambda: len(container.batches) == 2)
        late = bench.ask(b"l" * 8, slo_s=1.0)
        fresh = bench.ask(b"f" * 8)
        bench.loop.advance(2.0)
        for _ in sent:
            container.take().answer([b"1"])
        await until_async(lambda: late.done and container.batches)
        assert failure(late)[0] == "timeout"
        assert container.take().rows == [b"f" * 8] and not fresh.done
        # The next equal input does not join it.
        bench.ask(b"l" * 8)
        assert bench.queue.statistics().cache_joins == 0

    run(scenario)


@pytest.mark.parametrize(("max_batch", "sizes"), [(3, [3, 2]), (100, [5])])
def test_the_models_own_bound_on_batches_holds(run: Callable[..., None], max_batch: int, sizes: list[int]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start(max_batch=max_batch)
        await bench.link(container)
        queries = [bench.ask(bytes([number]) * 8) for number in range(5)]
        for size in sizes:
            await until_async(lambda: container.batches)
            batch = container.take()
            assert len(batch.rows) == size
            batch.answer([b"1"] * size)
        await until_async(lambda: all(query.done for query in queries))

    run(scenario)


def test_the_bound_by_the_type_of_outputs_outlives_a_batch_without_any(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        welcome = decode_welcome((container.greeting or b"")[HEADER_BYTES:])
        large = InputType(DType.FLOAT32, (2048, 2048))
        container.greeting = encode_welcome(replace(welcome, output_type=large, output_is_declared=True))
        await bench.link(container)
        (replica,) = bench.queue.replicas()
        query = bench.ask(bytes(8))
        await until_async(lambda: container.batches)
        container.take().answer([b""], {0: "no such user"})
        await until_async(lambda: query.done)
        assert failure(query)[0] == "model_error"
        assert replica.state is not None and replica.state.max_batch == 2

    run(scenario)


def test_a_batch_waits_for_its_delay_and_no_longer(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        for round_number in range(3):
            bench.ask(bytes([round_number, 0]) * 4)
            await turn_over()
            bench.ask(bytes([round_number, 1]) * 4)
            await turn_over(20)
            assert container.batches == []
            bench.loop.advance(50.0)
            await until_async(lambda: container.batches)
            batch = container.take()
            assert len(batch.rows) == 2
            batch.answer([b"1", b"2"])
            await until_async(lambda: not bench.queue.replica_statistics()[0].in_flight)

    run(scenario, Batching("fixed", 8, delay_ms=50_000.0))


def test_an_input_that_took_longer_than_the_slo_is_not_remembered(run: Callable[..., None]) -> None:
    """A new replica would be warmed up with it, and be away for as long."""

    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        bench.queue.set_slo(2.0)
        for row, evaluation_us in ((b"a" * 8, 1_999_000), (b"b" * 8, 8_000_000)):
            waiter = bench.ask(row)
            await until_async(lambda: container.batches)
            container.take().answer([b"1"], evaluation_us=evaluation_us)
            await until_async(lambda waiter=waiter: waiter.done)
        assert bench.queue.recent_row == b"a" * 8

    run(scenario)


def test_a_batch_that_failed_as_a_whole_is_evaluated_in_parts(run: Callable[..., None]) -> None:
    """Of an application that is alone. In the end each bad input is told its own error, and good ones are answered."""

    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        bad = (3, 9)
        queries = [bench.ask(bytes([number]) * 8) for number in range(12)]
        while not all(query.done for query in queries):
            await until_async(lambda: container.batches or all(query.done for query in queries))
            for batch in container.batches:
                wrong = [row[0] for row in batch.rows if row[0] in bad]
                if wrong:
                    batch.fail(f"cannot take {wrong[0]}")
                else:
                    batch.answer([b"%d" % row[0] for row in batch.rows])
            container.batches.clear()
        for number, query in enumerate(queries):
            if number in bad:
                assert failure(query) == ("model_error", f"cannot take {number}")
            else:
                assert outputs(query) == [str(number)]
        assert bench.queue.statistics().model_errors == len(bad)

    run(scenario)
