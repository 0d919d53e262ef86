"""Queries to a version that is asleep: it has no replica until it is asked."""

from collections.abc import Callable

from tests.queue_bench import DIGITS, Bench, failure, outputs
from tests.waiting import until_async


def test_queries_wait_for_one_that_is_asleep_until_it_wakes(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        queue = bench.queue
        queue.wakes = True
        assert queue.is_asleep and queue.has_replicas
        # A shadow does not wake it, and does not wait.
        assert failure(bench.ask(b"s" * 8, is_background=True))[0] == "no_replica"
        assert bench.turns.unserved == {} and not queue.has_waiting
        late, patient = bench.ask(b"a" * 8, slo_s=0.0), bench.ask(b"b" * 8)
        assert DIGITS in bench.turns.unserved and queue.has_waiting
        assert queue.why_late() == ("no_replica", "digits:1 was asleep, and has no replica yet")
        await until_async(lambda: late.done)
        assert failure(late) == queue.why_late() and not patient.done
        container = await bench.start()
        queue.set_replicas([container.replica])
        await until_async(lambda: container.batches)
        container.take().answer([b"1"])
        await until_async(lambda: patient.done)
        assert outputs(patient) == ["1"]
        # It falls asleep again, and what it has answered it still knows.
        queue.set_replicas([])
        await until_async(lambda: queue.is_asleep)
        assert outputs(bench.ask(b"b" * 8)) == ["1"]

    run(scenario)


def test_it_is_asleep_while_its_last_replica_still_has_a_batch(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        queue = bench.queue
        queue.wakes = True
        container = await bench.start()
        await bench.link(container)
        in_flight = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        bench.ask(b"s" * 8, is_background=True)
        queue.set_replicas([])
        assert queue.is_asleep and [replica.is_draining for replica in queue.replicas()] == [True]
        # A query for the input of a shadow's work waits for the next replica, too.
        bench.turns.unserved.clear()
        late = bench.ask(b"s" * 8)
        assert DIGITS in bench.turns.unserved
        bench.turns.unserved.clear()
        waiting = bench.ask(b"b" * 8)
        assert DIGITS in bench.turns.unserved
        container.take().answer([b"1"])
        await until_async(lambda: in_flight.done and not queue.replicas())
        assert outputs(in_flight) == ["1"] and not waiting.done and not late.done
        await bench.link(await bench.start())
        await until_async(lambda: bench.containers[1].batches)
        bench.containers[1].take().answer([b"2", b"3"])
        await until_async(lambda: waiting.done and late.done)

    run(scenario)


def test_who_waits_for_one_that_does_not_wake_any_more_is_told(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        for end in (lambda: bench.queue.set_replicas([]), bench.queue.close):
            bench.queue.wakes = True
            waiting = bench.ask(b"a" * 8)
            bench.queue.set_replicas([])
            assert not waiting.done
            bench.queue.wakes = False
            end()
            assert failure(waiting)[0] == "no_replica"

    run(scenario)
