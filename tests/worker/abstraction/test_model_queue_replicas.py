"""A version's queue when its replicas hang, die, drain or come later."""

from collections.abc import Callable

import pytest
from msgspec import structs

from tests.event_loops import turn_over
from tests.queue_bench import SLO_S, Bench, failure, outputs
from tests.waiting import until_async


def test_an_equal_input_does_not_join_one_on_a_replica_that_hangs(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        hanging, other = await bench.start(), await bench.start()
        await bench.link(hanging)
        hung = bench.ask(b"a" * 8, slo_s=20.0)
        await until_async(lambda: hanging.batches)
        await bench.link(hanging, other)
        bench.loop.advance(40.0)
        fresh = bench.ask(b"a" * 8, slo_s=20.0)
        await until_async(lambda: other.batches)
        other.take().answer([b"2"])
        await until_async(lambda: fresh.done)
        assert outputs(fresh) == ["2"] and not hung.done
        # The late output of the first batch neither replaces the newer entry nor is counted in the cache.
        hanging.take().answer([b"1"])
        await until_async(lambda: hung.done)
        assert outputs(bench.ask(b"a" * 8)) == ["2"]
        assert bench.cache.statistics().entries == 1

    run(scenario)


def test_a_replica_that_hangs_is_sent_no_more(run: Callable[..., None]) -> None:
    """A query that it does not answer waits for another replica, which is linked later."""

    async def scenario(bench: Bench) -> None:
        hanging, other = await bench.start(), await bench.start()
        await bench.link(hanging)
        hung = bench.ask(b"a" * 8)
        await until_async(lambda: hanging.batches)
        bench.loop.advance(1.0)
        waiting = bench.ask(b"b" * 8)
        await turn_over(20)
        assert bench.queue.replica_statistics()[0].in_flight == 1
        await bench.link(hanging, other)
        await until_async(lambda: other.batches)
        batch = other.take()
        assert batch.rows == [b"b" * 8]
        batch.answer([b"2"])
        await until_async(lambda: waiting.done)
        assert not hung.done

    run(scenario)


def test_work_of_a_replica_that_died_goes_to_another(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        await bench.link(first)
        queries = [bench.ask(bytes([number]) * 8) for number in range(3)]
        await until_async(lambda: first.batches)
        bench.queue.set_replicas([first.replica, second.replica])
        await until_async(lambda: bench.states() == ["linked", "linked"])
        await first.kill()
        # One by one: one of these inputs may have killed it.
        for number in range(3):
            await until_async(lambda: second.batches)
            batch = second.take()
            assert batch.rows == [bytes([number]) * 8]
            batch.answer([b"%d" % number])
        await until_async(lambda: queries[2].done)
        assert outputs(*queries) == ["0", "1", "2"]
        assert bench.queue.replica_statistics()[0].state == "lost"
        assert bench.queue.replica_statistics()[0].last_error

    run(scenario)


def test_an_input_in_flight_when_two_replicas_died_is_taken_as_the_cause(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        first, second = await bench.start(), await bench.start()
        await bench.link(first, second)
        query = bench.ask(b"a" * 8)
        for container in (first, second):
            await until_async(lambda container=container: container.batches)
            await container.kill()
        await until_async(lambda: query.done)
        code, message = failure(query)
        assert code == "model_error" and "2 containers of digits:1 died" in message
        assert bench.queue.statistics().queue_length == 0
        # It is not sent again: it fails at once.
        assert failure(bench.ask(b"a" * 8))[0] == "model_error"
        assert bench.ask(b"b" * 8).heard == []

    run(scenario)


def test_lost_work_that_nobody_wants_any_more_is_dropped(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        query = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        query.done = True
        await container.kill()
        await until_async(lambda: bench.states() == ["lost"])
        assert bench.queue.statistics().queue_length == 0
        # The next equal input does not join it.
        bench.ask(b"a" * 8)
        assert bench.queue.statistics().cache_joins == 0

    run(scenario)


def test_a_replica_that_is_no_longer_wanted_answers_its_last_batch(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        old, new = await bench.start(), await bench.start()
        await bench.link(old)
        query = bench.ask(b"a" * 8)
        await until_async(lambda: old.batches)
        bench.queue.set_replicas([new.replica])
        await until_async(lambda: "linked" in bench.states())
        assert bench.states() == ["draining", "linked"]
        later = bench.ask(b"b" * 8)
        await until_async(lambda: new.batches)
        old.take().answer([b"1"])
        new.take().answer([b"2"])
        await until_async(lambda: query.done and later.done)
        assert outputs(query, later) == ["1", "2"]
        assert bench.states() == ["linked"]
        await until_async(lambda: not old.callers)

    run(scenario)


def test_a_replica_that_is_wanted_again_while_it_drains_is_kept(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        query = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        bench.queue.set_replicas([])
        bench.queue.set_replicas([container.replica])
        container.take().answer([b"1"])
        await until_async(lambda: query.done)
        assert bench.states() == ["linked"]
        bench.ask(b"b" * 8)
        await until_async(lambda: container.batches)

    run(scenario)


def test_a_draining_replica_that_dies_leaves_nothing_behind(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start()
        await bench.link(container)
        flying = bench.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        bench.queue.set_replicas([])
        queued = bench.ask(b"b" * 8)
        await turn_over()
        assert not queued.done
        await container.kill()
        await until_async(lambda: flying.done and queued.done)
        assert failure(flying)[0] == failure(queued)[0] == "no_replica"
        assert bench.states() == []

    run(scenario)


def test_queries_wait_for_a_dialled_replica_and_not_if_there_is_none(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        assert failure(bench.ask(b"a" * 8)) == ("no_replica", "digits:1 has no replica")
        container = await bench.start()
        bench.queue.set_replicas([container.replica])
        query = bench.ask(b"a" * 8)
        assert bench.queue.why_late() == ("no_replica", "no replica of digits:1 is connected")
        await until_async(lambda: container.batches)
        assert bench.queue.why_late()[0] == "timeout"
        container.take().answer([b"1"])
        await until_async(lambda: query.done)

    run(scenario)


def test_close_tells_everyone_and_forgets(run: Callable[..., None]) -> None:
    async def scenario(bench: Bench) -> None:
        container = await bench.start(max_batch=1)
        await bench.link(container)
        kept = bench.ask(b"k" * 8)
        await until_async(lambda: container.batches)
        container.take().answer([b"1"])
        await until_async(lambda: kept.done)
        queries = [bench.ask(bytes([number]) * 8) for number in range(5)]
        await until_async(lambda: container.batches)
        bench.queue.close()
        assert {failure(query)[0] for query in queries} == {"no_replica"}
        assert bench.cache.statistics().entries == 0
        assert failure(bench.ask(b"k" * 8))[0] == "no_replica"

    run(scenario)


@pytest.mark.parametrize(
    ("nodes", "first"), [(("10.0.0.2", "10.0.0.1"), 1), (("", "10.0.0.2"), 0), (("10.0.0.2", ""), 1)]
)
def test_a_replica_of_the_own_node_is_asked_first(nodes: tuple[str, str], first: int, run: Callable[..., None]) -> None:
    """One without a node is on the only one that there is."""

    async def scenario(bench: Bench) -> None:
        containers = [await bench.start(), await bench.start()]
        for container in containers:
            container.evaluate = lambda rows: [b"1"] * len(rows)
        bench.queue.set_replicas(
            [structs.replace(one.replica, node=node) for one, node in zip(containers, nodes, strict=True)]
        )
        await until_async(lambda: bench.states().count("linked") == 2)
        for number in range(5):
            waiter = bench.ask(b"%8d" % number)
            await until_async(lambda: waiter.heard)  # noqa: B023
        assert [each.batches for each in bench.queue.replica_statistics()] == ([0, 5] if first else [5, 0])

    run(scenario)


def test_a_mark_stands_for_all_that_is_told_of_a_version_and_its_replicas(run: Callable[..., None]) -> None:
    """A scrape does not ask again for a reading whose mark it knows."""
    told: dict[int, object] = {}

    async def scenario(bench: Bench) -> None:
        def look() -> None:
            reading = structs.replace(bench.queue.statistics(), mark=0, last_answered_at=0.0)
            links = [structs.replace(one, last_error=None) for one in bench.queue.replica_statistics()]
            assert told.setdefault(bench.queue.mark(), (reading, links)) == (reading, links)
            assert bench.queue.statistics().mark == bench.queue.mark()

        look()
        first, second = await bench.start(), await bench.start()
        bench.queue.set_replicas([first.replica])
        look()  # it dials
        await bench.link(first)
        look()
        asked = [bench.ask(b"a" * 8), bench.ask(b"b" * 8)]
        look()  # they wait
        await until_async(lambda: first.batches)
        look()  # they are in flight
        first.take().answer([b"1", b"2"])
        await until_async(lambda: asked[1].done)
        look()
        bench.ask(b"a" * 8)
        look()  # from the cache
        bench.queue.set_slo(SLO_S / 2)
        look()
        failing = bench.ask(b"c" * 8)
        await until_async(lambda: first.batches)
        bench.queue.set_replicas([second.replica])
        look()  # the first drains
        first.take().fail("it raised")
        await until_async(lambda: failing.done and bench.states() == ["linked"])
        look()
        await second.kill()
        await until_async(lambda: bench.states() != ["linked"])
        look()

    run(scenario)
    assert len(told) > 8
