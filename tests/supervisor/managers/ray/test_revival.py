"""When an actor starts again by itself what it runs, in simulated time."""

import asyncio
import itertools
from random import Random

import pytest

from clipper.errors import ContainerFailed
from clipper.supervisor.managers.ray.actor_tasks import Reviver
from clipper.supervisor.managers.reconcile import plan as revival
from clipper.supervisor.managers.reconcile.plan import CRASH_LOOP_DEATHS, CRASH_LOOP_DELAY_S, PATIENCE_S, Revival
from tests.waiting import until_async


def test_nobody_is_waited_for_longer_than_a_supervisor_takes() -> None:
    found = Revival(100.0)
    assert found.ended(500.0) == 500.0 + PATIENCE_S
    found.starts(503.0)
    # It was well for long: its next death counts as the first.
    assert found.ended(1000.0) == 1000.0 + PATIENCE_S


def test_in_a_crash_loop_it_is_started_twice_a_minute_for_ever() -> None:
    found, random = Revival(0.0), Random(1)
    now_s, starts = 0.0, []
    while now_s < 24 * 3600:
        at_s = found.ended(now_s + random.random())  # it lives for less than a second
        assert at_s is not None
        starts.append(at_s)
        found.starts(at_s)
        now_s = at_s
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert all(pause < PATIENCE_S + 1 for pause in pauses[: CRASH_LOOP_DEATHS - 2])
    assert min(pauses[CRASH_LOOP_DEATHS:]) >= CRASH_LOOP_DELAY_S
    assert len(starts) < 24 * 3600 / CRASH_LOOP_DELAY_S + CRASH_LOOP_DEATHS


@pytest.mark.parametrize("when_it_ends", ["before", "after"])
def test_what_is_ended_on_purpose_stays_away(when_it_ends: str) -> None:
    found = Revival(0.0)
    if when_it_ends == "after":
        assert found.ended(1.0) is not None
    found.end()
    assert found.is_over and found.ended(2.0) is None


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
    monkeypatch.setattr(revival, "PATIENCE_S", 0.0)

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
