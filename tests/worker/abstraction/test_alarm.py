import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.abstraction.alarm import Alarm
from tests.waiting import TIMEOUT_S

# On a loop of uvloop, as in the worker: its call_at answers with another kind of handle where the time is nearly now.
FROM_NOW_S = (-1.0, 0.0, 0.0001, 0.0004, 0.001, 0.01)


@pytest.mark.parametrize("first_s", FROM_NOW_S)
@pytest.mark.parametrize("then_s", FROM_NOW_S)
def test_it_goes_off_once_at_the_earliest_of_two_times_however_near(first_s: float, then_s: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        rings: list[float] = []

        def ring() -> None:
            rings.append(loop.time())
            rung.set()

        alarm = Alarm(loop)
        start_s = loop.time()
        alarm.set(start_s + first_s, ring)
        alarm.set(start_s + then_s, ring)
        await asyncio.wait_for(rung.wait(), TIMEOUT_S)
        await asyncio.sleep(0.02)
        assert len(rings) == 1
        # The loop's clock counts whole milliseconds.
        assert rings[0] >= start_s + min(first_s, then_s) - 0.001

    uvloop.run(main())


@given(st.lists(st.sampled_from(FROM_NOW_S), min_size=1, max_size=5))
def test_cancelled_it_is_silent_until_it_is_set_again(times_s: list[float]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rings: list[float] = []
        rung = asyncio.Event()

        def ring() -> None:
            rings.append(loop.time())
            rung.set()

        alarm = Alarm(loop)
        for time_s in times_s:
            alarm.set(loop.time() + time_s, ring)
        alarm.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rings == []
        alarm.set(loop.time(), ring)
        await asyncio.wait_for(rung.wait(), TIMEOUT_S)
        assert len(rings) == 1

    uvloop.run(main())


def test_it_may_be_set_again_while_it_rings() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        rings = 0

        def ring() -> None:
            nonlocal rings
            rings += 1
            if rings == 3:
                done.set()
            else:
                alarm.set(loop.time(), ring)

        alarm = Alarm(loop)
        alarm.set(loop.time(), ring)
        await asyncio.wait_for(done.wait(), TIMEOUT_S)
        assert rings == 3

    uvloop.run(main())
