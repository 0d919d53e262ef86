import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from clipper.control.difference import Difference
from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, ReplicaAddress, Snapshot, VersionSnapshot
from clipper.settings.application import Link
from clipper.settings.version import Batching
from clipper.values.types import InputType, ModelId
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.predictor import DEMAND_S, Predictor
from clipper.worker.abstraction.turns import at_once
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.small_container import SmallContainer
from tests.waiting import until_async
from tests.works import Waiting

ONE_MIB = 1 << 20
AIMD = Batching()


class Fleet:
    """A predictor and the containers that its snapshots name."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.predictor = Predictor(ONE_MIB)
        self.containers: list[SmallContainer] = []

    async def start(self, version: str) -> SmallContainer:
        path = self._tmp_path / f"s{len(self.containers)}"
        container = await SmallContainer(path, version=version).start()
        self.containers.append(container)
        return container

    async def apply(
        self,
        current: str | None,
        versions: dict[str, list[SmallContainer]],
        applications: tuple[ApplicationSnapshot, ...] = (),
        batching: Batching = AIMD,
    ) -> None:
        made = tuple(
            VersionSnapshot(name, "doubles", batching, replicas=tuple(each.replica for each in containers))
            for name, containers in versions.items()
        )
        models = (ModelSnapshot("digits", current, made),) if versions else ()
        self.predictor.apply(Snapshot(1, applications, models))

    def ask(self, row: bytes, version: str | None = None) -> Waiting:
        queue = self.predictor.find("digits", version)
        assert queue is not None
        now_s = asyncio.get_running_loop().time()
        waiter = Waiting(now_s + 100.0)
        output = queue.predict(row, waiter, now_s, 100.0, "app")
        if output is not None:
            waiter.on_output("digits", output)
        return waiter


Scenario = Callable[[Fleet], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    def run_scenario(scenario: Scenario) -> None:
        async def whole() -> None:
            fleet = Fleet(tmp_path)
            try:
                await scenario(fleet)
            finally:
                fleet.predictor.close()
                for container in fleet.containers:
                    await container.kill()

        run_clean(whole())

    return run_scenario


async def answer(container: SmallContainer, output: bytes) -> None:
    await until_async(lambda: container.batches)
    batch = container.take()
    batch.answer([output] * batch.predict.rows)


def test_queries_go_to_the_new_current_version_from_one_instant_on(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        one, two = await fleet.start("1"), await fleet.start("2")
        one.evaluate = lambda rows: [b"1"] * len(rows)
        two.evaluate = lambda rows: [b"2"] * len(rows)
        await fleet.apply("1", {"1": [one], "2": [two]})
        await fleet.predictor.settle()
        assert fleet.predictor.unlinked() == {}
        before = fleet.ask(b"a" * 8)
        await fleet.apply("2", {"1": [one], "2": [two]})
        after, pinned = fleet.ask(b"a" * 8), fleet.ask(b"b" * 8, "1")
        await until_async(lambda: before.done and after.done and pinned.done)
        assert [each.heard[0][2] for each in (before, after, pinned)] == ["1", "2", "1"]
        # Each version keeps its own outputs.
        assert fleet.ask(b"a" * 8).heard[0][2] == "2"
        assert fleet.ask(b"a" * 8, "1").heard[0][2] == "1"

    run(scenario)


def test_what_was_asked_is_remembered_once_it_was_answered(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        def refuse_a(rows: list[bytes]) -> list[bytes]:
            return [b"1" if row != b"a" * 8 else b"not JSON" for row in rows]

        one, two = await fleet.start("1"), await fleet.start("2")
        one.evaluate = two.evaluate = refuse_a
        await fleet.apply("2", {"1": [one], "2": [two]})
        asked = fleet.ask(b"a" * 8)
        await until_async(lambda: asked.done)
        assert fleet.predictor.recent_input("digits") is None
        # The current version's, once it has answered one.
        for row, version in [(b"b" * 8, "1"), (b"c" * 8, "2")]:
            asked = fleet.ask(row, version)
            await until_async(lambda asked=asked: asked.done)
            assert fleet.predictor.recent_input("digits") == (InputType.parse("doubles"), row)
        assert fleet.predictor.recent_input("letters") is None

    run(scenario)


def test_a_type_that_is_learned_later_leaves_the_queue_as_it_is(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        def apply(output_type: str | None, *, is_declared: bool = False) -> ModelQueue:
            told = VersionSnapshot("1", "doubles", output_type=output_type, output_is_declared=is_declared)
            fleet.predictor.apply(Snapshot(1, (), (ModelSnapshot("digits", "1", (told,)),)))
            queue = fleet.predictor.find("digits")
            assert queue is not None
            return queue

        queue = apply(None)
        at_once(queue.output_typing.learning(b"true"))
        assert fleet.predictor.learned() == ((ModelId("digits", "1"), "bool[]"),)
        assert apply("string") is queue
        assert str(queue.output_typing.type) == "string" and fleet.predictor.learned() == ()
        assert apply("string", is_declared=True) is not queue
        at_once(apply(None).output_typing.learning(b"1"))
        assert fleet.predictor.learned() == ((ModelId("digits", "1"), "float64[]"),)
        fleet.predictor.apply(Snapshot(1, (), ()))
        at_once(apply(None).output_typing.learning(b'{"no":{"type":1}}'))
        assert fleet.predictor.learned() == ((ModelId("digits", "1"), ""),)
        fleet.predictor.apply(Snapshot(1, (), ()))
        assert fleet.predictor.learned() == ()

    run(scenario)


def test_what_is_not_in_the_snapshot_is_not_found(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        assert fleet.predictor.find("digits") is None
        await fleet.apply(None, {"1": []})
        assert fleet.predictor.find("digits") is None
        assert fleet.predictor.find("digits", "1") is not None
        assert fleet.predictor.find("digits", "2") is None
        await fleet.apply(None, {})
        assert fleet.predictor.find("digits", "1") is None
        assert fleet.predictor.queues() == []

    run(scenario)


def test_a_version_that_is_removed_answers_what_it_has_in_hand(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        container = await fleet.start("1")
        await fleet.apply("1", {"1": [container]}, batching=Batching("none"))
        queries = [fleet.ask(bytes([number]) * 8) for number in range(5)]
        await until_async(lambda: len(container.batches) == 2)
        await fleet.apply(None, {})
        assert fleet.predictor.find("digits", "1") is None
        assert len(fleet.predictor.undrained()) == 1
        await answer(container, b"1")
        await answer(container, b"1")
        await fleet.predictor.settle()
        # Those that were not sent yet are told that nobody is left to be asked.
        assert [query.heard[0][2] for query in queries] == ["1", "1", *["no_replica"] * 3]
        assert fleet.predictor.undrained() == ()
        assert fleet.predictor.cache.statistics().entries == 0
        await until_async(lambda: not container.callers)

    run(scenario)


def test_a_version_deployed_anew_under_its_name_has_no_old_outputs(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(fleet: Fleet) -> None:
        container, anew = await fleet.start("1"), await fleet.start("1")
        await fleet.apply("1", {"1": [container]})
        query = fleet.ask(b"a" * 8)
        await answer(container, b"1")
        await until_async(lambda: query.done)
        await fleet.apply("1", {"1": [anew]}, batching=Batching("fixed", 4))
        query = fleet.ask(b"a" * 8)
        await answer(anew, b"2")
        await until_async(lambda: query.done)
        assert query.heard[0][2] == "2"

    run(scenario)


def test_settle_waits_for_the_first_dial_and_for_the_last_batch(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        container, absent = await fleet.start("1"), SmallContainer(Path("/nowhere/s"))
        await fleet.apply("1", {"1": [container, absent]})
        assert set(fleet.predictor.unlinked().values()) == {"still dialling"}
        await fleet.predictor.settle()
        assert list(fleet.predictor.unlinked()) == [absent.replica.id]
        assert "No such file" in fleet.predictor.unlinked()[absent.replica.id]
        fleet.ask(b"a" * 8)
        await until_async(lambda: container.batches)
        await fleet.apply("1", {"1": []})
        assert fleet.predictor.undrained() == (container.replica.id,)
        settled = asyncio.create_task(fleet.predictor.settle())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        for _ in range(10):
            await turn_over()
            loop.advance(1.0)
        assert not settled.done()
        await answer(container, b"1")
        await settled
        assert fleet.predictor.undrained() == ()
        assert fleet.predictor.unlinked() == {}

    run(scenario)


def test_batches_are_sized_for_the_smallest_slo_of_those_that_ask(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        applications = (
            ApplicationSnapshot("follows", "doubles", 40.0, links=(Link("digits"),)),
            ApplicationSnapshot("follows too", "doubles", 60.0, links=(Link("digits"),)),
            ApplicationSnapshot("pins", "doubles", 500.0, links=(Link("digits", "1"),)),
            ApplicationSnapshot("other", "doubles", 1.0, links=(Link("faces"),)),
        )
        await fleet.apply("2", {"1": [], "2": [], "3": []}, applications)
        slos_s = {queue.model.version: queue.statistics().slo_s for queue in fleet.predictor.queues()}
        # None follows or pins 3, but a query of any application that links the model may name it.
        assert slos_s == {"1": 0.5, "2": 0.04, "3": 0.04}

    run(scenario)


def test_a_version_put_to_sleep_by_a_difference_is_demanded_once_asked(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(fleet: Fleet) -> None:
        def told(generation: int, *, wakes: bool) -> Difference:
            version = VersionSnapshot("1", "doubles", wakes=wakes)
            return Difference(1, generation, models=(ModelSnapshot("digits", "1", (version,)),))

        predictor = fleet.predictor
        container = await fleet.start("1")
        await fleet.apply("1", {"1": [container]})
        before = predictor.find("digits")
        predictor.apply(told(2, wakes=True))
        queue = predictor.find("digits")
        assert queue is before and queue is not None
        await until_async(lambda: queue.is_asleep)
        assert predictor.demanded() == ()
        waiting = fleet.ask(b"a" * 8)
        assert predictor.demanded() == (ModelId("digits", "1"),) and not waiting.done
        # So it is for a while, and as long as somebody waits.
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        loop.advance(DEMAND_S + 1)
        assert predictor.demanded() == (ModelId("digits", "1"),) and not waiting.done
        # The operator has scaled it to a range from 1 meanwhile, and it has no replica yet.
        predictor.apply(told(3, wakes=False))
        assert predictor.find("digits") is queue and waiting.heard[0][2] == "no_replica"
        assert predictor.demanded() == ()
        # It may sleep again; and of one that is gone nothing is left.
        predictor.apply(told(4, wakes=True))
        fleet.ask(b"b" * 8)
        predictor.apply(Difference(4, 5, gone_models=("digits",)))
        assert predictor.demanded() == ()

    run(scenario)


def test_who_was_answered_does_not_wake_a_version_that_soon_sleeps_again(run: Callable[[Scenario], None]) -> None:
    async def scenario(fleet: Fleet) -> None:
        def told(generation: int, *replicas: ReplicaAddress) -> Difference:
            version = VersionSnapshot("1", "doubles", replicas=replicas, wakes=True)
            return Difference(1, generation, models=(ModelSnapshot("digits", "1", (version,)),))

        predictor = fleet.predictor
        container = await fleet.start("1")
        await fleet.apply("1", {"1": []})
        predictor.apply(told(2))
        waiting = fleet.ask(b"a" * 8)
        assert predictor.demanded() == (ModelId("digits", "1"),)
        predictor.apply(told(3, container.replica))
        await answer(container, b"1")
        await until_async(lambda: waiting.done)
        predictor.apply(told(4))
        assert predictor.demanded() == ()

    run(scenario)
