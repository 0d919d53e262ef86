"""Queries to a version that has no replica while one is starting."""

from collections.abc import Callable

import pytest

from clipper.worker.abstraction.model_queue import MAX_QUEUE_LENGTH
from tests.queue_bench import Bench, failure, outputs
from tests.waiting import until_async


def test_queries_outlive_their_last_replica_if_another_is_starting(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        queue = bench.queue
        dying = await bench.start(max_batch=1)
        await bench.link(dying)
        before = [bench.ask(bytes([number]) * 8) for number in range(4)]
        combined = bench.ask(b"c" * 8, may_wait=False)
        shadow = bench.ask(b"s" * 8, is_background=True)
        await until_async(lambda: dying.batches)
        await dying.kill()
        await until_async(lambda: bench.states() == ["lost"])
        queue.is_starting = True
        queue.set_replicas([])
        # Another model may answer these two, or nobody waits for it.
        assert failure(combined)[0] == failure(shadow)[0] == "no_replica"
        after = bench.ask(b"z" * 8)
        assert not any(waiter.done for waiter in (*before, after)) and not queue.has_replicas
        assert failure(bench.ask(b"d" * 8, may_wait=False))[0] == "no_replica"
        assert queue.why_late() == ("no_replica", "a replica of digits:1 is starting, and no other is connected")
        container = await bench.start(max_batch=1)
        container.evaluate = lambda rows: [b"%d" % row[0] for row in rows]
        queue.is_starting = False
        await bench.link(container)
        await until_async(lambda: all(waiter.done for waiter in (*before, after)))
        assert outputs(*before, after) == ["0", "1", "2", "3", str(ord("z"))]

    run(scenario)


@pytest.mark.parametrize("ends", ["a crash loop", "its removal"])
def test_who_waits_for_one_that_does_not_come_any_more_is_told(ends: str, run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.queue.is_starting = True
        bench.queue.set_replicas([])
        waiting = bench.ask(b"a" * 8)
        assert not waiting.done
        if ends == "its removal":
            bench.queue.close()
        else:
            bench.queue.is_starting = False
            bench.queue.set_replicas([])
        assert failure(waiting)[0] == "no_replica"
        assert failure(bench.ask(b"b" * 8)) == ("no_replica", "digits:1 has no replica")

    run(scenario)


def test_what_waits_is_bounded(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.queue.is_starting = True
        for number in range(MAX_QUEUE_LENGTH):
            bench.ask(b"%8d" % number)
        assert failure(bench.ask(b"x" * 8))[0] == "overloaded"

    run(scenario)
