"""When an actor starts again by itself what it runs."""

import asyncio
import itertools

import pytest

from clipper.errors import ContainerFailed
from clipper.supervisor.managers.ray import actor_tasks
from clipper.supervisor.managers.ray.actor_tasks import PATIENCE_S, Reviver
from clipper.supervisor.managers.reconcile.plan import CRASH_LOOP_DEATHS, CRASH_LOOP_DELAY_S
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.waiting import until_async


def test_in_a_crash_loop_it_is_started_twice_a_minute_for_ever() -> None:
    starts: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)

        async def dies_at_once() -> None: ...

        async def start() -> None:
            starts.append(loop.time())

        reviver = Reviver(dies_at_once, start)
        for _ in range(3600):
            await turn_over()
            loop.advance(1.0)
        reviver.end()

    run_clean(scenario())
    # A timer may be early by the resolution of the clock.
    pauses = [after - before + 1e-6 for before, after in itertools.pairwise(starts)]
    assert all(PATIENCE_S <= pause < PATIENCE_S + 2 for pause in pauses[: CRASH_LOOP_DEATHS - 2])
    assert min(pauses[CRASH_LOOP_DEATHS:]) >= CRASH_LOOP_DELAY_S
    assert 3600 / (CRASH_LOOP_DELAY_S + 2) < len(starts) < 3600 / CRASH_LOOP_DELAY_S + CRASH_LOOP_DEATHS


class Runner:
    """Stands in for an actor: ``died`` is set when it dies. Its first starts fail."""

    def __init__(self, failing: int) -> None:
        self.died = asyncio.Event()
        self.failing = failing
        self.starts = 0

    async def wait(self) -> None:
        await self.died.wait()

    async def start(self) -> None:
        self.starts += 1
        if self.starts <= self.failing:
            raise ContainerFailed("no memory")
        self.died.clear()


def test_it_is_started_until_it_runs_and_not_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_tasks, "PATIENCE_S", 0.0)

    async def test() -> None:
        runner = Runner(failing=2)
        reviver = Reviver(runner.wait, runner.start)
        await asyncio.sleep(0)
        assert runner.starts == 0
        runner.died.set()
        await until_async(lambda: not runner.died.is_set())
        assert runner.starts == 3
        reviver.end()
        runner.died.set()
        await asyncio.wait([reviver._running])
        assert runner.starts == 3

    asyncio.run(test())
